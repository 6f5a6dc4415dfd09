"""Converts Jina's requests and answers to calls and results, and back; pure, for gRPC, HTTP and WebSocket."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from google.protobuf.message import DecodeError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from jina_asgi.documents.codec import Codec
from jina_asgi.errors import InvalidDocs, InvalidRequest, JinaASGIError
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.protobuf.documents import answer_buffers, any_rows, not_writable, wire
from jina_asgi.protocols.protobuf.messages import (
    ERROR,
    DataRequest,
    DataRequestList,
    HeaderProto,
    SingleDocumentRequest,
    Struct,
)
from jina_asgi.protocols.protobuf.node_writer import framed
from jina_asgi.protocols.protobuf.size_guard import check_request, check_requests, field_at
from jina_asgi.protocols.protobuf.statuses import raise_for, route_buffers
from jina_asgi.settings import Limits
from jina_asgi.types import Docs, Result, Step

#: Floats up to this represent every integer.
_WHOLE = 2.0**53
_HEADER = 0x0A  # its tag in each kind of request
_DEEPEST = 96  # the nesting that every protobuf reads: 32 levels of a Struct


def parameters_of(message: Any) -> dict[str, Any]:
    """The parameters of a message; a number without a fraction is an int."""
    fields = message.parameters.fields
    return {key: _value(value) for key, value in fields.items()} if fields else {}


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


def struct_of(parameters: Mapping[str, Any]) -> Any:
    made = Struct()
    if parameters:
        try:
            plain = to_jsonable_python(dict(parameters), fallback=_number)
            if _levels(plain) > _DEEPEST:
                raise ValueError("expected at most 32 levels of mappings; protobuf cannot read deeper nesting")
            made.update(plain)
        except (ValueError, TypeError, PydanticSerializationError) as error:
            raise InvalidRequest(f"the parameters cannot be written as Jina's protobuf: {error}") from None
    return made


def _levels(value: Any) -> int:
    """The nesting of messages for a value in a Struct."""
    if isinstance(value, dict):
        return 3 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list):
        return 2 + max(map(_levels, value), default=0)
    return 0


def _number(value: Any) -> Any:
    """Converts numpy's numbers and arrays in parameters and results."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


_name = functools.lru_cache(maxsize=256)(normalised)  # as written by clients: usually the same few
_LONG_NAME = 256  # a longer one is hardly repeated, and would fill the cache
_UNBOUNDED = Limits(docs=2**63, values=2**63)
USUAL = Limits()


class RequestFields(msgspec.Struct, frozen=True):
    """The fields of a request. `docs` is a DocListProto's bytes, not decoded yet; `request_id` is "" if none was sent."""

    endpoint: str
    request_id: str
    parameters: dict[str, Any]
    target_executor: str
    docs: bytes


class Answer(NamedTuple):
    """The content of an answer: `results` are Jina's `__results__`, `trail` its routes."""

    docs: Docs
    parameters: dict[str, Any]
    results: dict[str, Any]
    trail: tuple[Step, ...]
    request_id: str


def read(raw: bytes, kind: Any = DataRequest, limits: Limits = USUAL) -> Any:
    """Parses a DataRequest, DataRequestList or SingleDocumentRequest.

    Raises:
        InvalidRequest: it is malformed. TooLarge: it is too large without its docs.
    """
    (check_requests if kind is DataRequestList else check_request)(raw, limits)
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidRequest(f"not a {kind.DESCRIPTOR.name}Proto: {error}") from None


def salvaged(raw: bytes, kind: Any = DataRequest) -> Any:
    """What can be read of a broken DataRequest or SingleDocumentRequest: its header, if that is its first field."""
    made = kind()
    try:
        tag, start, end = field_at(raw, 0)
        if tag == _HEADER:
            made.header.MergeFromString(raw[start:end])
    except (IndexError, InvalidRequest, DecodeError):
        made.Clear()
    return made


def salvaged_join(raw: bytes) -> Any:
    """The same of the first request in a broken DataRequestList."""
    try:
        _, start, end = field_at(raw, 0)
    except (IndexError, InvalidRequest):
        return DataRequest()
    return salvaged(raw[start:end])


def fields_of(message: Any) -> RequestFields:
    """The fields of a DataRequest or a SingleDocumentRequest."""
    header = message.header
    return RequestFields(
        endpoint_of(header), header.request_id, parameters_of(message), header.target_executor, _docs_of(message)
    )


def endpoint_of(header: Any) -> str:
    """The endpoint in a header."""
    spelled = header.exec_endpoint
    return (_name if len(spelled) <= _LONG_NAME else normalised)(spelled) or "/default"


def docs(fields: RequestFields, codec: Codec, limits: Limits) -> Docs:
    """The docs of a request; raises as `DocsWire.read`."""
    return Docs(codec, wire(codec).read(fields.docs, limits))


def answer(message: Any, result: Result) -> bytes:
    """Makes the answer to a DataRequest: the message with the result's docs, and with its results and routes added.

    The message is changed.

    Raises:
        ExecutorError: a value among the docs or the results cannot be written; the message is unchanged then.
    """
    docs = answer_buffers(result.docs)
    if result.results:
        try:
            message.parameters.CopyFrom(struct_of({**parameters_of(message), "__results__": result.results}))
        except JinaASGIError as error:
            raise not_writable(error) from error
    message.ClearField("data")
    message.header.ClearField("status")
    return b"".join([message.SerializeToString(), *route_buffers(result.trail), *docs])


def response(result: Result, parameters: Mapping[str, Any], request_id: str) -> bytes:
    """A DataRequest with a result and its parameters; raises as `answer` does."""
    try:
        made = DataRequest(header=HeaderProto(request_id=request_id), parameters=struct_of(parameters))
    except JinaASGIError as error:
        raise not_writable(error) from error
    return answer(made, Result(result.docs, trail=result.trail))


def stepped(message: Any) -> Callable[[Docs], bytes]:
    """Makes the function that writes each document of the answer to a SingleDocumentRequest.

    It raises ExecutorError, as `answer` does.
    """
    head: bytes = SingleDocumentRequest(header=message.header).SerializeToString()

    def step(docs: Docs) -> bytes:
        try:
            return head + framed(b"\x22", wire(docs.codec).write_doc(docs.typed[0]))
        except JinaASGIError as error:
            raise not_writable(error) from error

    return step


def request(
    endpoint: str, docs: Docs | None, parameters: Mapping[str, Any], *, request_id: str, target_executor: str = ""
) -> Any:
    """The DataRequest of a call.

    Raises:
        InvalidDocs: a doc cannot be written. InvalidRequest: a parameter cannot be written.
    """
    made = DataRequest(header=_header(endpoint, request_id, target_executor), parameters=struct_of(parameters))
    if docs is not None:
        made.data.docs = wire(docs.codec).write(docs.typed)
    return made


def single(endpoint: str, docs: Docs, parameters: Mapping[str, Any], *, request_id: str) -> Any:
    """The SingleDocumentRequest of a stream, which has one document; raises as `request` does."""
    if len(docs) != 1:
        raise InvalidDocs(f"{endpoint} takes one document, got {len(docs)}")
    made = SingleDocumentRequest(header=_header(endpoint, request_id, ""), parameters=struct_of(parameters))
    made.document = wire(docs.codec).write_doc(docs.typed[0], reveals=True)
    return made


def answered(message: Any, codec: Codec) -> Answer:
    """Reads an answer.

    Raises:
        JinaASGIError: the error in its status; InvalidDocs if its docs do not fit the schema.
    """
    raise_for(message)
    parameters = parameters_of(message)
    found = parameters.get("__results__")
    docs = codec.docs(wire(codec).read(_docs_of(message), _UNBOUNDED))
    trail = tuple(map(_step, message.routes))
    return Answer(docs, parameters, found if isinstance(found, dict) else {}, trail, message.header.request_id)


def values(message: Any) -> list[dict[str, Any]]:
    """The docs of an answer as dicts, without their class; raises as `answered` does."""
    raise_for(message)
    return any_rows(_docs_of(message), _UNBOUNDED)


def _docs_of(message: Any) -> bytes:
    if isinstance(message, SingleDocumentRequest):
        return framed(b"\x0a", message.document)
    data = message.data
    found: bytes = data.docs or data.docs_bytes  # one of them at most
    return found


def _header(endpoint: str, request_id: str, target_executor: str) -> Any:
    return HeaderProto(request_id=request_id, exec_endpoint=endpoint, target_executor=target_executor or None)


def _step(route: Any) -> Step:
    start, end = (stamp.seconds + stamp.nanos / 1e9 for stamp in (route.start_time, route.end_time))
    failed = route.status.code == ERROR
    return Step(route.executor, start, end, (route.status.exception.name or "error") if failed else None)
