"""Jina's requests and answers as calls and results, both ways; pure, and the same over gRPC, HTTP and WebSocket.

An error is part of an answer: `status` has a safe sentence; `exception.args` has that sentence and the JSON that HTTP
would answer, from which our own clients make the same error.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import orjson
from google.protobuf.message import DecodeError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from jina_asgi.documents.codec import Codec, codec
from jina_asgi.errors import ExecutorError, InvalidRequest, JinaASGIError
from jina_asgi.errors._error_lists import number_of
from jina_asgi.errors._raised import loggable, sanitized
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.problem_reader import error_in
from jina_asgi.protocols.problems import encodable, problem
from jina_asgi.protocols.protobuf.documents import any_rows, wire
from jina_asgi.protocols.protobuf.fast_parser import too_many
from jina_asgi.protocols.protobuf.messages import (
    ERROR,
    DataRequest,
    DataRequestList,
    HeaderProto,
    SingleDocumentRequest,
    StatusProto,
    Struct,
)
from jina_asgi.protocols.protobuf.node_writer import framed, varint
from jina_asgi.protocols.protobuf.routes import written
from jina_asgi.protocols.protobuf.size_guard import check_docs, check_request, check_requests
from jina_asgi.settings import Limits
from jina_asgi.types import Call, Context, Docs, Endpoint, Result, Step

M = TypeVar("M")
#: Up to here a float names every integer.
_WHOLE = 2.0**53
_MAX_LISTED = 3
_name = functools.lru_cache(maxsize=256)(normalised)  # of a client's own spelling: the same few again and again
_LONG_NAME = 256  # a longer one is hardly asked again, and would fill the cache
_DEEPEST = 96  # messages within one another that every protobuf reads, which are 32 of a Struct's levels
_UNBOUNDED = Limits(docs=2**63, values=2**63)
USUAL = Limits()


class RequestFields(msgspec.Struct, frozen=True):
    """What a request says. `docs` is a DocListProto's bytes, not yet read; `request_id` is "" where none came."""

    endpoint: str
    request_id: str
    parameters: dict[str, Any]
    target_executor: str
    docs: bytes


class Answer(NamedTuple):
    """What an answer says: `results` are Jina's `__results__`, `trail` its routes."""

    docs: Docs
    parameters: dict[str, Any]
    results: dict[str, Any]
    trail: tuple[Step, ...]
    request_id: str


def read(raw: bytes, kind: Any = DataRequest, limits: Limits = USUAL) -> Any:
    """The DataRequest, DataRequestList or SingleDocumentRequest that bytes are.

    Raises:
        InvalidRequest: they are none. TooLarge: there is too much in it beside docs.
    """
    (check_requests if kind is DataRequestList else check_request)(raw, limits)
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidRequest(f"not a {kind.DESCRIPTOR.name}Proto: {error}") from None


def asked(message: Any) -> RequestFields:
    """What a DataRequest, or a SingleDocumentRequest, asks for."""
    header = message.header
    return RequestFields(
        endpoint_of(header), header.request_id, parameters_of(message), header.target_executor, _docs_of(message)
    )


def endpoint_of(header: Any) -> str:
    """The endpoint that a header names."""
    spelled = header.exec_endpoint
    return (_name if len(spelled) <= _LONG_NAME else normalised)(spelled) or "/default"


def calls(parts: Sequence[RequestFields], endpoint: Endpoint, context: Context, limits: Limits) -> list[Call]:
    """The call of each of the requests that meet at a join; raises as `call` does, of the docs of all together."""
    check_docs(b"".join([part.docs for part in parts]), limits)  # as one list, which they are then
    made: list[Call] = []
    for part in parts:
        made.append(call(part, endpoint, context, limits))
        if sum(len(one.docs) for one in made) > limits.docs:
            raise too_many(limits.docs)
    return made


def call(asked: RequestFields, endpoint: Endpoint, context: Context, limits: Limits) -> Call:
    """The call of an endpoint that a request means.

    Raises:
        InvalidRequest, InvalidDocs, TooLarge: as `DocsWire.read`.
    """
    given = docs(asked, codec(endpoint.input), limits)
    return Call(endpoint.name, given, asked.parameters, context, (), asked.target_executor)


def docs(asked: RequestFields, codec: Codec, limits: Limits) -> Docs:
    """The docs of a request; raises as `call` does."""
    return Docs(codec, wire(codec).read(asked.docs, limits))


def answer(message: Any, result: Result) -> bytes:
    """The answer to a DataRequest: itself with the result's docs; the result also adds to its parameters and routes.

    The message is used up.

    Raises:
        ExecutorError: a value among the docs or the results has no place in one; the message is what it was.
    """
    docs = written_docs(result.docs)
    if result.results:
        try:
            message.parameters.CopyFrom(_struct({**parameters_of(message), "__results__": result.results}))
        except JinaASGIError as error:
            raise _no_place(error) from error
    message.ClearField("data")
    message.header.ClearField("status")
    return completed(message.SerializeToString(), docs, result.trail)


def completed(front: bytes, docs: tuple[list[Any], int], trail: Sequence[Step]) -> bytes:
    """An answer of what stands before its docs, and these: so what may be large is copied once."""
    buffers, size = docs
    before = b"\x0a" + varint(size)
    return b"".join([front, written(trail), b"\x22", varint(len(before) + size), before, *buffers])


def written_docs(docs: Docs) -> tuple[list[Any], int]:
    """The docs of an answer, as `DocsWire.buffers` has them; raises as `answer` does."""
    try:
        return wire(docs.codec).buffers(docs.typed)
    except JinaASGIError as error:
        raise _no_place(error) from error


def _no_place(error: JinaASGIError) -> ExecutorError:
    return ExecutorError(f"an answer has no place in Jina's protobuf: {error}")


def response(result: Result, parameters: Mapping[str, Any], request_id: str) -> bytes:
    """A DataRequest of a result and the parameters that go with it; raises as `answer` does."""
    try:
        made = DataRequest(header=HeaderProto(request_id=request_id), parameters=_struct(parameters))
    except JinaASGIError as error:
        raise _no_place(error) from error
    return answer(made, Result(result.docs, trail=result.trail))


def stepped(message: Any) -> Callable[[Docs], bytes]:
    """What makes each step of the answer to a SingleDocumentRequest: its bytes, of one document.

    It raises ExecutorError, as `answer` does.
    """
    head: bytes = SingleDocumentRequest(header=message.header).SerializeToString()

    def step(docs: Docs) -> bytes:
        try:
            return head + framed(b"\x22", wire(docs.codec).write_doc(docs.typed[0]))
        except JinaASGIError as error:
            raise _no_place(error) from error

    return step


def failed(message: M, error: BaseException, *, expose: bool = False) -> M:
    """The answer for an error: the request with its docs, and a status.

    Args:
        message: the DataRequest or SingleDocumentRequest.
        expose: also send an Executor's own message, its exception's name and the stack.
    """
    made: Any = type(message)()
    made.CopyFrom(message)
    made.header.status.CopyFrom(status_of(error, expose=expose))
    return made  # type: ignore[no-any-return]  # of the same class


def status_of(error: BaseException, *, expose: bool = False) -> Any:
    """The StatusProto of an error."""
    error = sanitized(error)
    status, body, headers = problem(error, expose=expose)
    sentence = _sentence(body["detail"])
    wait = next((int(value) / 1000 for name, value in headers if name == b"retry-after-ms"), None)
    body = {**body, "status": status} if wait is None else {**body, "status": status, "retry_after": wait}
    made = StatusProto(code=ERROR, description=sentence)
    made.exception.name = (expose and getattr(error, "raised", "")) or body["error"]["type"]
    made.exception.args.extend([sentence, orjson.dumps(body, default=safe_repr).decode()])
    made.exception.executor = getattr(error, "executor", "") or getattr(error, "node", "")
    if expose:
        made.exception.stacks.extend(map(encodable, traceback.format_exception(loggable(error))))
    return made


def request(
    endpoint: str, docs: Docs | None, parameters: Mapping[str, Any], *, request_id: str, target_executor: str = ""
) -> Any:
    """The DataRequest that asks for a call.

    Raises:
        InvalidDocs: a value among the docs has no place in it. InvalidRequest: nor has a parameter.
    """
    made = DataRequest(header=_header(endpoint, request_id, target_executor), parameters=_struct(parameters))
    if docs is not None:
        made.data.docs = wire(docs.codec).write(docs.typed)
    return made


def single(endpoint: str, docs: Docs, parameters: Mapping[str, Any], *, request_id: str) -> Any:
    """The SingleDocumentRequest that asks for a stream; raises as `request` does."""
    made = SingleDocumentRequest(header=_header(endpoint, request_id, ""), parameters=_struct(parameters))
    made.document = wire(docs.codec).write_doc(docs.typed[0], reveals=True)
    return made


def answered(message: Any, codec: Codec) -> Answer:
    """What an answer says.

    Raises:
        JinaASGIError: what its status says; InvalidDocs where its docs are not of the schema.
    """
    raise_for(message)
    parameters = parameters_of(message)
    found = parameters.get("__results__")
    docs = codec.docs(wire(codec).read(_docs_of(message), _UNBOUNDED))
    trail = tuple(map(_step, message.routes))
    return Answer(docs, parameters, found if isinstance(found, dict) else {}, trail, message.header.request_id)


def values(message: Any) -> list[dict[str, Any]]:
    """The docs of an answer as dicts, where their class is not known; raises as `answered` does."""
    raise_for(message)
    return any_rows(_docs_of(message), _UNBOUNDED)


def raise_for(message: Any) -> None:
    """Raise what the status of an answer says, if that is an error.

    Raises:
        JinaASGIError: that error; of a server that is not ours, an ExecutorError with its description.
    """
    status = message.header.status
    if status.code != ERROR:
        return
    exception = status.exception
    try:
        body = orjson.loads(exception.args[1]) if len(exception.args) == 2 else None
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("status"), int) and isinstance(body.get("error"), dict):
        wait = body.get("retry_after", 1.0)
        raise error_in(body["status"], body, retry_after=float(wait) if isinstance(wait, int | float) else 1.0)
    raise ExecutorError(status.description, executor=exception.executor, raised=exception.name)


def parameters_of(message: Any) -> dict[str, Any]:
    """The parameters of a message; a number without a fraction is an int."""
    fields = message.parameters.fields
    return {key: _value(value) for key, value in fields.items()} if fields else {}


def _docs_of(message: Any) -> bytes:
    if isinstance(message, SingleDocumentRequest):
        return framed(b"\x0a", message.document)
    data = message.data
    found: bytes = data.docs or data.docs_bytes  # one of them at most
    return found


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _WHOLE else number
    if kind == "struct_value":
        return {key: _value(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _struct(parameters: Mapping[str, Any]) -> Any:
    made = Struct()
    if parameters:
        try:
            plain = to_jsonable_python(dict(parameters), fallback=_number)
            if _levels(plain) > _DEEPEST:
                raise ValueError("expected at most 32 levels of mappings; no protobuf reads what is nested deeper")
            made.update(plain)
        except (ValueError, TypeError, PydanticSerializationError) as error:
            raise InvalidRequest(f"the parameters have no place in Jina's protobuf: {error}") from None
    return made


def _levels(value: Any) -> int:
    """How many messages lie within one another, where a Struct holds this."""
    if isinstance(value, dict):
        return 3 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list):
        return 2 + max(map(_levels, value), default=0)
    return 0


def _number(value: Any) -> Any:
    """Numbers and arrays of numpy's, among parameters and results."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _header(endpoint: str, request_id: str, target_executor: str) -> Any:
    return HeaderProto(request_id=request_id, exec_endpoint=endpoint, target_executor=target_executor or None)


def _step(route: Any) -> Step:
    start, end = (stamp.seconds + stamp.nanos / 1e9 for stamp in (route.start_time, route.end_time))
    failed = route.status.code == ERROR
    return Step(route.executor, start, end, (route.status.exception.name or "error") if failed else None)


def _sentence(detail: Any) -> str:
    """An error's detail as one sentence for the client; of FastAPI's list, the first entries."""
    if not isinstance(detail, list):
        return str(detail)
    listed = [f"{'.'.join(map(str, entry.get('loc', ())))}: {entry.get('msg', '')}" for entry in detail[:_MAX_LISTED]]
    more = number_of(detail) - _MAX_LISTED
    return "; ".join(listed) + (f" (and {more} more)" if more > 0 else "")
