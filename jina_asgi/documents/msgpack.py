"""Writes and reads any value, with docs and tensors in it, as msgpack; large buffers are read in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jina_asgi.documents import rendered, tensors
from jina_asgi.documents._sizes import LARGE
from jina_asgi.documents.chunked_reader import unpack_in_pieces
from jina_asgi.documents.writers import Writer
from jina_asgi.errors import InvalidDocs

Buffer = bytes | bytearray | memoryview


def pack(value: Any) -> bytes:
    """Writes a value as msgpack."""
    return _encode(value)


def unpack(buffer: Buffer) -> Any:
    """Reads the value in a msgpack buffer.

    Raises:
        InvalidDocs: the bytes are not msgpack, nest too deep, or hold a tensor that lies about its size.
    """
    return _decoded(_decode, buffer)


def unpack_answer(buffer: Buffer) -> Any:
    """As `unpack`; the value may also be a document with its JSON (`rendered`)."""
    halves = rendered.split(buffer) if len(buffer) > LARGE else None
    if halves is None:
        return _decoded(_decode_answer, buffer)
    values, json = halves
    found = unpack(values)
    if type(found) is not dict:
        raise InvalidDocs(f"not a msgpack document: expected a mapping, got {type(found).__name__}")
    return rendered.Rendered(found, json)


def _decoded(decode: Callable[[Buffer], Any], buffer: Buffer) -> Any:
    try:
        return decode(buffer) if len(buffer) <= LARGE else unpack_in_pieces(buffer, decode)
    except (msgspec.DecodeError, ValueError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidDocs(f"not a msgpack document: {error}") from error


_encode = Writer({}).encode
_decode = msgspec.msgpack.Decoder(ext_hook=tensors.unpack).decode
_decode_answer = msgspec.msgpack.Decoder(ext_hook=rendered.unpack).decode
