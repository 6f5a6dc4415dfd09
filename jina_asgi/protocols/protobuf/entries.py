"""Parses one entry of a document's map, if its bytes are as protobuf's own writers write them; for `fast_parser`.

An entry is `0A length, 0A length name, 12 length node`; a node is one value and, after it, docarray's name of its type.
Any other encoding is `Odd`, and left to protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from jina_asgi.documents import tensors
from jina_asgi.protocols.protobuf import messages

#: A form is cached if the bytes around its payload are at most this many.
MAX_AROUND = 512
_MAX_VARINT = 10
_float = struct.Struct("<d").unpack_from
Make = Callable[[bytes, int, int], Any]


class Odd(Exception):  # an outcome, and no error
    """Not encoded as protobuf's own writers do."""


#: The form of an entry: its name, the bytes before and after its payload, the payload's place and length, and what
#: makes the value of the payload between two places (None: the document has no such field). A plain tuple, which
#: unpacks in half the time of a named one.
Entry = tuple[str, bytes, bytes, int, int, Make | None]


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """Reads a length, and returns its end.

    Raises:
        Odd: it has more than four bytes. IndexError: `raw` ends within it.
    """
    value = raw[at]
    if value < 128:
        return value, at + 1
    value &= 127
    for shift in (7, 14, 21):
        at += 1
        byte = raw[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
    raise Odd


def bounds(raw: bytes, at: int, end: int) -> tuple[str, int, int]:
    """The name of the entry at a place, and the start and end of its node.

    Raises:
        Odd, IndexError: it is not an entry, or not within `end`. UnicodeDecodeError: its name is not text.
    """
    if raw[at] != 0x0A:
        raise Odd
    length, key = varint(raw, at + 1)
    stop = key + length
    if stop > end or raw[key] != 0x0A:
        raise Odd
    length, key = varint(raw, key + 1)
    node = key + length
    if node >= stop or raw[node] != 0x12:
        raise Odd
    length, begin = varint(raw, node + 1)
    if begin + length != stop:
        raise Odd
    return raw[key:node].decode(), begin, stop


def form(raw: bytes, at: int, begin: int, stop: int, name: str, *, known: bool) -> Entry | None:
    """The form of an entry, by the places of the entry and of its node; None if the value is not a simple one.

    Args:
        known: the document has this field; values of unknown fields are not read.

    Raises:
        ValueError: a tensor's size is wrong.
    """
    if not known:
        return name, raw[at:begin], b"", begin - at, stop - begin, None
    found = _payload(raw, begin, stop)
    if found is None:
        return None
    start, end, after, make = found
    if after != stop:  # only its type is there
        if raw[after] != 0x6A:
            return None
        length, text = varint(raw, after + 1)
        if text + length != stop:
            return None
        raw[text:stop].decode()  # protobuf refuses invalid text
    return name, raw[at:start], raw[end:stop], start - at, end - start, make


def _payload(raw: bytes, begin: int, stop: int) -> tuple[int, int, int, Make] | None:
    """The start and end of a node's payload, the end of its value, and the function that makes the value."""
    if begin == stop:
        return begin, stop, stop, _none
    tag = raw[begin]
    if tag in (0x0A, 0x2A):
        length, start = varint(raw, begin + 1)
        end = start + length
        return (start, end, end, _text if tag == 0x0A else _blob) if end <= stop else None
    if tag == 0x19:
        end = begin + 9
        return (begin + 1, end, end, _number) if end <= stop else None
    if tag in (0x10, 0x20):
        end = begin + 1
        while raw[end] >= 128 and end < stop:
            end += 1
        end += 1
        return (begin + 1, end, end, _integer if tag == 0x10 else _truth) if end <= stop else None
    return _tensor(raw, begin, stop) if tag == 0x32 else None


def _tensor(raw: bytes, begin: int, stop: int) -> tuple[int, int, int, Make] | None:
    """As `_payload`, for a dense array with a buffer that is not empty, before its shape and dtype."""
    length, array = varint(raw, begin + 1)
    after = array + length
    if after > stop or length == 0 or raw[array] != 0x0A:
        return None
    length, dense = varint(raw, array + 1)
    if length == 0 or dense + length != after or raw[dense] != 0x0A:
        return None
    length, start = varint(raw, dense + 1)
    end = start + length
    if end > after:
        return None
    rest = messages.DenseNdArrayProto.FromString(raw[end:after])
    if rest.buffer:
        return None
    return start, end, after, tensors.of_named(rest.dtype, rest.shape, length)


def _none(_raw: bytes, _start: int, _end: int) -> None:
    return None


def _text(raw: bytes, start: int, end: int) -> str:
    return raw[start:end].decode()


def _blob(raw: bytes, start: int, end: int) -> bytes:
    return raw[start:end]


def _number(raw: bytes, start: int, _end: int) -> float:
    value: float = _float(raw, start)[0]
    return value


def _integer(raw: bytes, start: int, end: int) -> int:
    value = _varint64(raw, start, end) & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _truth(raw: bytes, start: int, end: int) -> bool:
    return _varint64(raw, start, end) != 0


def _varint64(raw: bytes, start: int, end: int) -> int:
    """The number that these bytes encode.

    Raises:
        Odd: they are not exactly one number.
    """
    value = 0
    last = end - 1
    if last - start >= _MAX_VARINT:
        raise Odd
    for place in range(start, last):
        byte = raw[place]
        if byte < 128:
            raise Odd
        value |= (byte & 127) << 7 * (place - start)
    value |= raw[last] << 7 * (last - start)
    if raw[last] >= 128 or value >> 64:
        raise Odd
    return value
