"""The binary messages of the JSON WebSocket: the same messages and events as msgpack.

A binary call gets binary events: `data` is as in a body of `application/msgpack`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jina_asgi.documents import tensors
from jina_asgi.protocols.websocket._messages import Events, Identity

_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode


class PackedEvents(Events):
    """The events of one binary call."""

    __slots__ = ("_identity",)

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    def doc(self, data: bytes) -> bytes:
        """One document of a stream, its msgpack given."""
        return merged({"id": self._identity, "event": "data"}, b"\x81" + _encode("data") + data)

    def answer(self, body: bytes) -> bytes:
        """The answer of a unary call: HTTP's body, a map."""
        return merged({"id": self._identity, "event": "data"}, body)

    def end(self) -> bytes:
        """The end of a successful call."""
        return _encode({"id": self._identity, "event": "end"})

    def cancelled(self) -> bytes:
        """The end of a cancelled call."""
        return _encode({"id": self._identity, "event": "end", "cancelled": True})

    def error(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> bytes:
        """The end of a failed call, as in JSON."""
        said = {"id": self._identity, "event": "error", "status": status, **problem}
        return _encode(said if retry_after is None else {**said, "retry_after": retry_after})


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
