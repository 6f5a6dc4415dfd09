"""What the heads of frames say, and how endpoints and errors are written as data.

Heads are msgpack maps: a name that a version does not know is skipped, a default is left out, so that a later
version may add to them. Values of the user (parameters, identity, results, facts) are bytes inside a head: one
that cannot be read fails its own call and not the connection. Pure: no asyncio, clock, os or logging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from jina_asgi import errors
from jina_asgi.errors import DefinitionError, ExecutorError, InvalidRequest, JinaASGIError, ProtocolError
from jina_asgi.errors._raised import described, sound
from jina_asgi.errors._shown import bounded, shown
from jina_asgi.errors._tracebacks import trace_of, traced
from jina_asgi.protocols.frames._layout import FRAME_LIMIT, Frame
from jina_asgi.types import Endpoint, EndpointKind, Field, ParametersSchema, Schema

#: The first words of a connection, and the versions of the protocol that this library speaks.
MAGIC = "jina_asgi frames"
VERSIONS = (2, 2)
#: What an error may carry across: longer messages are cut (characters), larger facts left out (bytes).
MESSAGE_LIMIT = 1 << 14
FACTS_LIMIT = 1 << 17
#: The least that a side must take in one frame, in bytes: any error fits.
LEAST_LIMIT = 1 << 18

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
HeadT = TypeVar("HeadT", bound="Head")
_ERRORS: Mapping[str, type[JinaASGIError]] = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, JinaASGIError)
}
# What msgspec raises for values that msgpack cannot hold, nest too deep or are not UTF-8.
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The base of every head."""


class ArenaHead(Head, frozen=True):
    """Memory that the other side may write docs to: its number, and where it is found."""

    arena: Count
    process: Count
    descriptor: Count
    size: Count


class Hello(Head, frozen=True):
    """The first frame each way. The answer's `version` is the one both speak; it lists the endpoints served.

    `arena` is for the other side to write docs to, where this one keeps memory for others.
    """

    magic: str
    low: Count
    high: Count
    limit: Count = FRAME_LIMIT
    version: Count = 0
    endpoints: list[dict[str, Any]] = []
    arena: ArenaHead | None = None


class CallHead(Head, frozen=True):
    """A call without its docs. `remaining` is what is left of the deadline in seconds.

    The frame's docs are the call's own and then those of each source, of which `sources` has the node and the
    number. `items` and `size` are what a stream may send before it needs credit; `costs` what the docs cost in a batch,
    `inputs` names of their content, `giver` the node that gave the docs.
    """

    endpoint: str
    request_id: str
    parameters: bytes = b""
    headers: dict[str, str] = {}
    remaining: float | None = None
    identity: bytes = b""
    tenant: str = ""
    priority: int = 0
    sources: list[tuple[str, Count]] = []
    items: Count = 0
    size: Count = 0
    costs: list[Annotated[float, msgspec.Meta(ge=0)]] | None = None
    inputs: list[bytes] | None = None
    giver: str = "gateway"


class ResultHead(Head, frozen=True):
    """An answer without its docs. A step of the trail is name, start, end and error."""

    results: bytes = b""
    trail: list[tuple[str, float, float, str | None]] = []


class ErrorHead(Head, frozen=True):
    """An error by the name of its class; `trace` is of what an Executor raised, for the log."""

    type: str
    message: str
    facts: bytes = b""
    trace: str = ""


class CreditHead(Head, frozen=True):
    """What a stream may send beyond what it was allowed before."""

    items: Count
    size: Count


class GoodbyeHead(Head, frozen=True):
    """The answering side takes no new calls: requests with an id above `last` never start."""

    last: Count


class NewsHead(Head, frozen=True):
    """How the answering side is: `trouble` is why it can answer nothing just now, or nothing."""

    trouble: str = ""


class PongHead(Head, frozen=True):
    """The answer to a ping: `figures` are the answering side's, for `/-/status`, where it has any."""

    figures: dict[str, Any] = {}


class ReleaseHead(Head, frozen=True):
    """Docs in shared memory that are needed no more: arena and offset of each."""

    docs: list[tuple[Count, Count]]


class EndedHead(Head, frozen=True):
    """Arenas that there are no more; the other side has given back all docs in them."""

    arenas: list[Count]


_encoder = msgspec.msgpack.Encoder()
_lenient_encoder = msgspec.msgpack.Encoder(enc_hook=shown)
_decoders: Mapping[type[Head], msgspec.msgpack.Decoder[Any]] = {
    head: msgspec.msgpack.Decoder(head)
    for head in (
        Hello,
        CallHead,
        ResultHead,
        ErrorHead,
        CreditHead,
        GoodbyeHead,
        NewsHead,
        PongHead,
        ReleaseHead,
        EndedHead,
    )
}
_unpack = msgspec.msgpack.Decoder(dict[str, Any]).decode


def write(head: Head) -> bytes:
    """A head as msgpack.

    Raises:
        InvalidRequest: a value in it is not of the type that it says.
    """
    try:
        return _encoder.encode(head)
    except _UNWRITABLE as error:
        raise InvalidRequest(f"a call's context cannot cross to another process: {error}") from error


def read(frame: Frame, head: type[HeadT]) -> HeadT:
    """A frame's head.

    Raises:
        ProtocolError: the frame has another head.
    """
    try:
        found: HeadT = _decoders[head].decode(frame.head)
    except _UNREADABLE as error:
        raise ProtocolError(f"a frame without a {head.__name__}: {error}") from error
    return found


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as plain data, without its classes.

    Raises:
        DefinitionError: its JSON Schema or batching settings hold something that is no data.
    """
    parameters = endpoint.parameters
    data = {
        "name": endpoint.name,
        "kind": endpoint.kind,
        "input": _describe_schema(endpoint.input),
        "output": _describe_schema(endpoint.output),
        "parameters": parameters
        and {"name": parameters.name, "json_schema": parameters.json_schema, "required": parameters.required},
        "idempotent": endpoint.idempotent,
        "concurrent": endpoint.concurrent,
        "batching": None if endpoint.batching is None else dict(endpoint.batching),
        "description": endpoint.description,
    }
    try:
        # Through msgpack and back: what is compared or shown here is what the other side will see.
        return _unpack(_encoder.encode(data))
    except (*_UNWRITABLE, *_UNREADABLE) as error:
        raise DefinitionError(
            f"the endpoint {endpoint.name} cannot be described to another process: expected plain data "
            f"in its schemas and batching settings: {error}"
        ) from error


class _SchemaData(msgspec.Struct, frozen=True):
    name: str
    documents: dict[str, tuple[Field, ...]]
    json_schema: dict[str, Any]


class _ParametersData(msgspec.Struct, frozen=True):
    name: str
    json_schema: dict[str, Any]
    required: bool


class _EndpointData(msgspec.Struct, frozen=True):
    name: str
    kind: EndpointKind
    input: _SchemaData
    output: _SchemaData
    parameters: _ParametersData | None = None
    idempotent: bool = False
    concurrent: bool = False
    batching: dict[str, Any] | None = None
    description: str = ""


def endpoint_of(data: Mapping[str, Any]) -> Endpoint:
    """The endpoint that `describe` wrote, without classes.

    Raises:
        ProtocolError: the data describes no endpoint.
    """
    try:
        read = msgspec.convert(data, _EndpointData)
    except _UNREADABLE as error:
        raise ProtocolError(f"this describes no endpoint: {error}") from error
    parameters = read.parameters
    return Endpoint(
        name=read.name,
        kind=read.kind,
        input=_schema_of(read.input),
        output=_schema_of(read.output),
        parameters=None
        if parameters is None
        else ParametersSchema(parameters.name, parameters.json_schema, parameters.required),
        idempotent=read.idempotent,
        concurrent=read.concurrent,
        batching=read.batching,
        description=read.description,
    )


def agreed(given: Mapping[str, Endpoint] | None, served: Mapping[str, Endpoint]) -> Mapping[str, Endpoint]:
    """The endpoints of an other side that serves `served`: those `given`, which have their classes, where any are.

    Raises:
        ProtocolError: the other side serves other endpoints than were given.
    """
    if given is None:
        return served
    described = {name: endpoint_of(describe(endpoint)) for name, endpoint in given.items()}
    differing = sorted(name for name in described.keys() | served.keys() if described.get(name) != served.get(name))
    if differing:
        raise ProtocolError(f"the other side serves other endpoints than were given: {', '.join(differing)} differ")
    return given


def write_error(error: BaseException) -> bytes:
    """An error as the head of an error frame; one that is not ours goes as an ExecutorError."""
    error = sound(error)
    known = next((kind.__name__ for kind in type(error).__mro__ if _ERRORS.get(kind.__name__) is kind), None)
    if known is None or not isinstance(error, JinaASGIError):
        return _encoder.encode(ErrorHead("ExecutorError", described(error)))
    trace = trace_of(error) if isinstance(error, ExecutorError) else ""
    return _encoder.encode(ErrorHead(known, bounded(error.message, MESSAGE_LIMIT), _facts(error), trace))


def error_of(head: ErrorHead) -> JinaASGIError:
    """The error that `write_error` wrote; an ExecutorError for a type that this version does not know."""
    try:
        facts = _unpack(head.facts) if head.facts else {}
    except _UNREADABLE:  # of another version: the kind and the message still stand
        facts = {}
    error = error_named(head.type, head.message, facts) or ExecutorError(f"{head.type}: {head.message}")
    error.__cause__ = traced(head.trace)
    return error


def error_named(name: str, message: str, facts: Mapping[str, Any]) -> JinaASGIError | None:
    """The error of ours that has this name, with its facts where they fit; None where none has."""
    kind = _ERRORS.get(name)
    if kind is None:
        return None
    try:
        return kind(message, **facts)
    except (TypeError, ValueError):  # facts of another version, as above
        return kind(message)


def _facts(error: JinaASGIError) -> bytes:
    facts = error.facts()
    if not facts:
        return b""
    try:
        packed = _lenient_encoder.encode(dict(facts))
    except _UNWRITABLE:  # an input that msgpack cannot hold; the error matters more than its facts
        return b""
    return packed if len(packed) <= FACTS_LIMIT else b""


def _describe_schema(schema: Schema) -> dict[str, Any]:
    return {"name": schema.name, "documents": dict(schema.documents), "json_schema": dict(schema.json_schema)}


def _schema_of(data: _SchemaData) -> Schema:
    if data.name not in data.documents:
        raise ProtocolError(f"the schema {data.name} does not have the document it is named for")
    pending = [field for fields in data.documents.values() for field in fields]
    while pending:
        field = pending.pop()
        pending += field.items
        if field.doc is not None and field.doc not in data.documents:
            raise ProtocolError(f"the schema {data.name} does not have the document {field.doc}")
    return Schema(data.name, data.documents, data.json_schema)
