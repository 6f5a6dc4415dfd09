"""An answered document with the JSON that its class made of it.

A process that has only the field plan can thus write the JSON that the class would: with its serializers, computed
fields and aliases.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from jina_asgi.documents import tensors

#: The msgpack extension of such a document: the length of its values, the values, and the JSON.
CODE = 33
_SIZE = struct.Struct("<I")
_EXT32 = 0xC9


class Rendered(dict[str, Any]):
    """A document's values by field. `json` becomes None when a value is changed."""

    __slots__ = ("json",)

    def __init__(self, values: dict[str, Any], json: bytes) -> None:
        super().__init__(values)
        self.json: bytes | None = json

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.json = None


class RawJson:
    """Encoded JSON within a value, as orjson's Fragment, but with a known length."""

    __slots__ = ("json",)

    def __init__(self, json: bytes) -> None:
        self.json = json


def pack(values: bytes, json: bytes) -> bytes:
    """Packs a document's values, already msgpack, and its JSON."""
    size = _SIZE.size + len(values) + len(json)
    if size < 1 << 16:
        return msgspec.msgpack.encode(msgspec.msgpack.Ext(CODE, _SIZE.pack(len(values)) + values + json))
    head = struct.pack(">BIb", _EXT32, size, CODE) + _SIZE.pack(len(values))
    return b"".join([head, values, json])  # lets other threads run if it is large


def unpack(code: int, buffer: memoryview) -> Any:
    """Reads a msgpack extension of an answer: such a document, or a tensor.

    Raises:
        ValueError: it is neither.
    """
    if code != CODE:
        return tensors.unpack(code, buffer)
    values, json = _halves(buffer)
    return Rendered(_values(values), json)


def split(buffer: bytes | bytearray | memoryview) -> tuple[memoryview, bytes] | None:
    """The values, still msgpack, and the JSON of a document that is too large for a short head; None for other values."""
    raw = memoryview(buffer)
    if raw[0] != _EXT32 or raw[5] != CODE or len(raw) != 6 + int.from_bytes(raw[1:5], "big"):
        return None
    return _halves(raw[6:])


def _halves(buffer: memoryview) -> tuple[memoryview, bytes]:
    if len(buffer) < _SIZE.size:
        raise ValueError("not a document with its JSON")
    end = _SIZE.size + _SIZE.unpack_from(buffer)[0]
    return buffer[_SIZE.size : end], bytes(buffer[end:])


_values = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=tensors.unpack).decode
