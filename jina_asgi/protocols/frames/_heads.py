"""Frame heads, and the encoding of endpoints and errors as plain data.

Heads are msgpack maps: unknown names are skipped and defaults are left out, so that a later version may add names.
User values (parameters, identity, results, error facts) are bytes inside a head: one that cannot be decoded fails
its own call and not the connection. Pure: no asyncio, clock, os or logging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from jina_asgi import errors
from jina_asgi.errors import DefinitionError, ExecutorError, InvalidRequest, JinaASGIError, ProtocolError
from jina_asgi.errors._raised import error_text, sanitized
from jina_asgi.errors._shown import safe_repr, truncated
from jina_asgi.errors.load_failure import cause_traceback, remote_cause
from jina_asgi.protocols.frames._layout import FRAME_LIMIT, Frame
from jina_asgi.types import Endpoint, EndpointKind, Field, ParametersSchema, Schema

#: The magic words that open a connection, and the protocol versions that this library speaks.
MAGIC = "jina_asgi frames"
VERSIONS = (2, 2)
#: Limits for an encoded error: longer messages are cut (characters), larger facts are left out (bytes).
MESSAGE_LIMIT = 1 << 14
FACTS_LIMIT = 1 << 17
#: The smallest frame limit, in bytes, that a peer may announce: any error fits.
LEAST_LIMIT = 1 << 18

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
HeadT = TypeVar("HeadT", bound="Head")
_ERRORS: Mapping[str, type[JinaASGIError]] = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, JinaASGIError)
}
# What msgspec raises for values that msgpack cannot hold, that nest too deep or that are not UTF-8.
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The base of every head."""


class ArenaHead(Head, frozen=True):
    """Describes an arena of shared memory that the peer may write docs to: its number and its descriptor."""

    arena: Count
    process: Count
    descriptor: Count
    size: Count


class Hello(Head, frozen=True):
    """The first frame each way. The server's answer has `endpoints`, and in `version` the version that both speak.

    `arena` is shared memory for the peer to write docs to, where this side offers any.
    """

    magic: str
    low: Count
    high: Count
    limit: Count = FRAME_LIMIT
    version: Count = 0
    endpoints: list[dict[str, Any]] = []
    arena: ArenaHead | None = None


class CallHead(Head, frozen=True):
    """A call without its docs. `remaining` is the time left until the deadline, in seconds.

    The frame's docs are the call's own, followed by those of each source; `sources` has each source's node and number
    of docs. `items` and `size` are a stream's initial credit; `costs` is the batching cost of each doc, `inputs` a
    digest of each doc, `giver` the node whose output the docs are; `request_ids` are those of a batch,
    `trace` has W3C's headers of its trace.
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
    request_ids: list[str] = []
    trace: dict[str, str] = {}


class ResultHead(Head, frozen=True):
    """A result without its docs. A step of the trail is (name, start, end, error)."""

    results: bytes = b""
    trail: list[tuple[str, float, float, str | None]] = []


class ErrorHead(Head, frozen=True):
    """An error by the name of its class; `trace` is the traceback of an Executor's exception, for the log."""

    type: str
    message: str
    facts: bytes = b""
    trace: str = ""


class CreditHead(Head, frozen=True):
    """The additional items and bytes that a stream may send."""

    items: Count
    size: Count


class GoodbyeHead(Head, frozen=True):
    """The server takes no new calls: requests with an id above `last` never start."""

    last: Count


class NewsHead(Head, frozen=True):
    """The server's health: `trouble` is why it cannot answer calls at the moment, empty when it can."""

    trouble: str = ""


class PongHead(Head, frozen=True):
    """The answer to a ping: `figures` are the server's metrics for `/-/status`, if it has any."""

    figures: dict[str, Any] = {}


class ReleaseHead(Head, frozen=True):
    """Docs in shared memory that the sender no longer reads: arena and offset of each."""

    docs: list[tuple[Count, Count]]


class EndedHead(Head, frozen=True):
    """Arenas that were closed; the peer has already released all docs in them."""

    arenas: list[Count]


_encoder = msgspec.msgpack.Encoder()
_lenient_encoder = msgspec.msgpack.Encoder(enc_hook=safe_repr)
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
    """Encodes a head as msgpack.

    Raises:
        InvalidRequest: a value in it is not of the type that it says.
    """
    try:
        return _encoder.encode(head)
    except _UNWRITABLE as error:
        raise InvalidRequest(f"a call's context cannot cross to another process: {error}") from error


def read(frame: Frame, head: type[HeadT]) -> HeadT:
    """Decodes a frame's head.

    Raises:
        ProtocolError: the frame has another head.
    """
    try:
        found: HeadT = _decoders[head].decode(frame.head)
    except _UNREADABLE as error:
        raise ProtocolError(f"a frame without a {head.__name__}: {error}") from error
    return found


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """Describes an endpoint as plain data, without its classes.

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
        # Through msgpack and back, so that comparisons use exactly what the peer will decode.
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
    """Builds the endpoint that `describe` described, without classes.

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


def match_endpoints(given: Mapping[str, Endpoint] | None, served: Mapping[str, Endpoint]) -> Mapping[str, Endpoint]:
    """Checks the endpoints that a server has against the expected ones, and returns the expected ones if there are any.

    The expected endpoints have their classes; those of the server do not.

    Raises:
        ProtocolError: the server's endpoints differ from the expected ones.
    """
    if given is None:
        return served
    described = {name: endpoint_of(describe(endpoint)) for name, endpoint in given.items()}
    differing = sorted(name for name in described.keys() | served.keys() if described.get(name) != served.get(name))
    if differing:
        raise ProtocolError(f"the other side serves other endpoints than were given: {', '.join(differing)} differ")
    return given


def write_error(error: BaseException) -> bytes:
    """Encodes an error as the head of an error frame; an exception from outside this library becomes an ExecutorError."""
    error = sanitized(error)
    known = next((kind.__name__ for kind in type(error).__mro__ if _ERRORS.get(kind.__name__) is kind), None)
    if known is None or not isinstance(error, JinaASGIError):
        return _encoder.encode(ErrorHead("ExecutorError", error_text(error)))
    trace = cause_traceback(error) if isinstance(error, ExecutorError) else ""
    return _encoder.encode(ErrorHead(known, truncated(error.message, MESSAGE_LIMIT), _facts(error), trace))


def error_of(head: ErrorHead) -> JinaASGIError:
    """Decodes what `write_error` encoded; an error type that this version does not know becomes an ExecutorError."""
    try:
        facts = _unpack(head.facts) if head.facts else {}
    except _UNREADABLE:  # written by another version: the type and the message are still valid
        facts = {}
    error = error_by_name(head.type, head.message, facts) or ExecutorError(f"{head.type}: {head.message}")
    error.__cause__ = remote_cause(head.trace)
    return error


def error_by_name(name: str, message: str, facts: Mapping[str, Any]) -> JinaASGIError | None:
    """Builds an error of this library by class name, with its facts if they fit; None if there is no such class."""
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
    except _UNWRITABLE:  # msgpack cannot hold the input; the error matters more than its facts
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
