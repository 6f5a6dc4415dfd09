"""The messages of the JSON WebSocket: reads a message's id and kind, and writes events.

    in   {"id", "endpoint", "data", "parameters", "header", "timeout"}    a call; `timeout` in seconds
                                                                          and W3C's "traceparent", "tracestate"
         {"id", "event": "cancel"}                                        stop it
    out  {"id", "event": "data" | "end" | "error", ...}                   the last of a call is "end" or "error"

A call's documents stay bytes here: they are parsed when the call has a place in the queue. Binary messages are the same
as msgpack.

The binary messages of the JSON WebSocket: the same messages and events as msgpack.

A binary call gets binary events: `data` is as in a body of `application/msgpack`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import orjson

from jina_asgi.documents import msgpack, tensors
from jina_asgi.errors import InvalidRequest, JinaASGIError, TooLarge
from jina_asgi.protocols.http.json_pieces import without_nested
from jina_asgi.protocols.problems import as_json
from jina_asgi.protocols.size_guard import HUGE, check_json, check_msgpack
from jina_asgi.types import EMPTY

Identity = str | int

MAX_TIMEOUT = 1e7
_MAX_ID = 128
_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")
#: Of a message that is refused: the entries among which its id is looked for, and the bytes of a small value.
_MAX_ENTRIES, _MAX_SMALL = 2**10, 2**10

_Id = Annotated[str, msgspec.Meta(max_length=_MAX_ID)] | int


class _Message(msgspec.Struct):
    id: _Id
    event: str = "call"
    endpoint: str = "/default"
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None
    traceparent: str = ""
    tracestate: str = ""


class _WithId(msgspec.Struct):
    id: _Id


_message = msgspec.json.Decoder(_Message).decode
_named = msgspec.json.Decoder(_WithId).decode
_packed_message = msgspec.msgpack.Decoder(_Message).decode
_packed_named = msgspec.msgpack.Decoder(_WithId).decode


@dataclass(frozen=True, slots=True)
class CallMessage:
    """A call. `endpoint` is as its client wrote it; `packed`: a binary message; `trace` are its own headers of W3C's."""

    id: Identity
    endpoint: str
    timeout: float | None
    raw: bytes
    packed: bool = False
    trace: Mapping[str, str] = EMPTY


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The cancellation of a call."""

    id: Identity


@dataclass(frozen=True, slots=True)
class Unread:
    """An invalid message; `id` is None if it has none."""

    id: Identity | None
    error: JinaASGIError


def read(raw: bytes, values: int, *, packed: bool = False) -> CallMessage | Cancelled | Unread:
    """Reads a message of at most so many values; `packed`: a binary one."""
    if len(raw) >= HUGE:
        try:
            (check_msgpack if packed else check_json)(raw, values)
        except TooLarge as error:
            return Unread(_id_of((_without_nested if packed else without_nested)(raw), packed), error)
    try:
        message = (_packed_message if packed else _message)(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Unread(
            _id_of(raw, packed), InvalidRequest(f"expected {_kind(packed)} with an id and an endpoint: {error}")
        )
    except RecursionError:
        return Unread(None, TooLarge("the message nests too deep"))
    if isinstance(message.id, int) and not -(2**63) <= message.id < 2**64:
        return Unread(None, InvalidRequest("expected an id of at most 64 bits, or a text"))
    if message.event == "cancel":
        return Cancelled(message.id)
    if message.event != "call":
        return Unread(
            message.id, InvalidRequest(f"expected a call, or the event 'cancel', got the event {message.event[:32]!r}")
        )
    timeout = None if message.timeout is None else min(message.timeout, MAX_TIMEOUT)
    trace = _trace_of(message) if message.traceparent else EMPTY
    return CallMessage(message.id, message.endpoint, timeout, raw, packed, trace)


def _trace_of(message: _Message) -> Mapping[str, str]:
    """The headers of a call's trace; none if they are malformed, as W3C has it."""
    if not _PARENT.fullmatch(message.traceparent):
        return EMPTY
    state = {"tracestate": message.tracestate} if _STATE.fullmatch(message.tracestate) else {}
    return {"traceparent": message.traceparent, **state}


def _kind(packed: bool) -> str:
    return "a msgpack map" if packed else "a JSON object"


def _id_of(raw: bytes, packed: bool) -> Identity | None:
    try:
        found = (_packed_named if packed else _named)(raw).id
        return found if isinstance(found, str) or -(2**63) <= found < 2**64 else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _without_nested(raw: bytes) -> bytes:
    """A msgpack map with nil for each value that is not small; what is broken is left out."""
    count, at = msgpack.container(raw, 0)
    entries = list[bytes]()
    try:
        while msgpack.is_mapping(raw[0]) and len(entries) < min(count, _MAX_ENTRIES):
            value = msgpack.end_of(raw, at, len(raw))
            end = msgpack.end_of(raw, value, len(raw))
            if min(value, end) < 0:
                break
            entries.append(raw[at:end] if end - value <= _MAX_SMALL else raw[at:value] + b"\xc0")
            at = end
    except IndexError:
        pass  # its end: what is before it counts
    return b"\xde" + len(entries).to_bytes(2) + b"".join(entries)


class Events:
    """The events of one call, as text; `identity` None: of no call."""

    __slots__ = ("_head",)

    def __init__(self, identity: Identity | None) -> None:
        self._head = b'{"id":' + orjson.dumps(identity) + b',"event":"'

    def doc(self, data: bytes) -> str | bytes:
        """One document of a stream, its JSON given."""
        return msgpack.text(b"".join((self._head + b'data","data":', data, b"}")))

    def answer(self, body: bytes) -> tuple[str | bytes, str | bytes]:
        """The answer of a unary call (HTTP's body, an object) and its end."""
        return msgpack.text(b"".join((self._head + b'data",', body[1:]))), self.end()

    def end(self) -> str | bytes:
        """The end of a successful call."""
        return (self._head + b'end"}').decode()

    def cancelled(self) -> str | bytes:
        """The end of a cancelled call."""
        return (self._head + b'end","cancelled":true}').decode()

    def error(self, problem: Mapping[str, Any]) -> str | bytes:
        """The end of a failed call: HTTP's status and body, and the seconds until a retry if it may succeed."""
        return (self._head + b'error",' + as_json(problem)[1:]).decode()


#: Keeps proxies from closing a silent socket; clients can ignore it.
PING = '{"id":null,"event":"ping"}'


_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode


class PackedEvents(Events):
    """The events of one binary call."""

    __slots__ = ("_identity",)

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    def doc(self, data: bytes) -> bytes:
        """One document of a stream, its msgpack given."""
        return merged({"id": self._identity, "event": "data"}, b"\x81" + _encode("data") + data)

    def answer(self, body: bytes) -> tuple[bytes, bytes]:
        """The answer of a unary call (HTTP's body, a map) and its end."""
        return merged({"id": self._identity, "event": "data"}, body), self.end()

    def end(self) -> bytes:
        """The end of a successful call."""
        return _encode({"id": self._identity, "event": "end"})

    def cancelled(self) -> bytes:
        """The end of a cancelled call."""
        return _encode({"id": self._identity, "event": "end", "cancelled": True})

    def error(self, problem: Mapping[str, Any]) -> bytes:
        """The end of a failed call, as in JSON."""
        return _encode({"id": self._identity, "event": "error", **problem})


class _Event(msgspec.Struct, omit_defaults=True):
    id: Any = None
    event: str = ""
    data: msgspec.Raw = msgspec.Raw(b"\xc0")
    parameters: Any = None
    header: Any = None
    status: int = 500
    detail: Any = None
    error: Any = None
    retry_after: float = 1.0


_event = msgspec.msgpack.Decoder(_Event, ext_hook=tensors.unpack).decode
_buffers = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def event_of(raw: bytes) -> dict[str, Any]:
    """Reads an event, without its `data`.

    Raises:
        msgspec.MsgspecError, ValueError: it is malformed.
    """
    found = _event(raw)
    return {name: getattr(found, name) for name in found.__struct_fields__}


def buffers_of(data: Any) -> list[bytes] | None:
    """The documents in an event's `data`, as buffers; None if it is not a list."""
    try:
        return [bytes(one) for one in _buffers(data)]
    except msgspec.MsgspecError:
        return None


def merged(head: Mapping[str, Any], packed: bytes) -> bytes:
    """Merges `head` into another map, which is packed already; at most fifteen entries."""
    return bytes([packed[0] + len(head)]) + _encode(head)[1:] + packed[1:]
