"""Writes and reads any value, with docs and tensors in it, as msgpack; large buffers are read in pieces.

Decodes large msgpack in pieces, so that other threads run in between: a decoder holds the GIL until it has read the
whole buffer.

Lists and mappings are cut between their items; the decoder reads small values itself.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jina_asgi.documents import tensors
from jina_asgi.documents._sizes import LARGE
from jina_asgi.documents.writers import Rendered, Writer, list_head, map_head, split_rendered, unpack_rendered
from jina_asgi.errors import InvalidDocs

Buffer = bytes | bytearray | memoryview
_decoder = getincrementaldecoder("utf-8")


def _lengths() -> list[int]:
    lengths = [0] * 256
    for head in range(0xA0, 0xC0):
        lengths[head] = head - 0xA0
    for head, width in {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}.items():
        lengths[head] = -width
    for head, width in {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.items():
        lengths[head] = -width
    for head, length in {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.items():
        lengths[head] = length
    for head, length in {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}.items():
        lengths[head] = length
    for power in range(5):
        lengths[0xD4 + power] = 1 + 2**power
    return lengths


_TEXTS = range(0xD9, 0xDC)
_SMALL_CONTAINERS, _LARGE_CONTAINERS = range(0x80, 0xA0), range(0xDC, 0xE0)
#: By the first byte of a value: how many bytes follow, or minus the width of the length or count that follows.
LENGTHS = _lengths()
#: By the first byte: the size of a value, if this byte determines it; else 0.
SIZES = [0 if head in _SMALL_CONTAINERS or LENGTHS[head] < 0 else 1 + LENGTHS[head] for head in range(256)]


def is_mapping(head: int) -> bool:
    """Whether a value that begins with this byte is a mapping."""
    return 0x80 <= head < 0x90 or 0xDE <= head <= 0xDF


def container(raw: Buffer, at: int) -> tuple[int, int]:
    """The number of items or entries of the list or mapping at a place, and their start; -1 if it is neither."""
    head = raw[at]
    if head in _SMALL_CONTAINERS:
        return head & 15, at + 1
    if head in _LARGE_CONTAINERS:
        start = at + 1 - LENGTHS[head]
        return int.from_bytes(raw[at + 1 : start], "big"), start
    return -1, at


def end_of(raw: Buffer, at: int, limit: int) -> int:
    """The end of the value at a place; -1 if it is beyond `limit`. Raises IndexError at the buffer's end."""
    values = 1
    while values > 0:
        if at >= limit:
            return -1
        head = raw[at]
        values -= 1
        if size := SIZES[head]:
            at += size
            continue
        count, start = container(raw, at)
        if count >= 0:
            at, values = start, values + count * (1 + is_mapping(head))
        else:  # a text, bytes or an extension
            start = at + 1 - LENGTHS[head]
            at = start + int.from_bytes(raw[at + 1 : start], "big") + (0xC7 <= head <= 0xC9)
    return at if at <= limit else -1


def open_at(raw: Buffer, at: int, limit: int) -> list[int]:
    """Where the lists and mappings begin that end beyond `limit`, from the one at a place to the innermost."""
    starts, left = list[int](), list[int]()
    values = 1  # of the innermost; `left` has those after it of the others
    while at < limit:
        if size := SIZES[raw[at]]:
            at += size
        else:
            count, start = container(raw, at)
            if count > 0:
                starts.append(at)
                left.append(values - 1)
                at, values = start, count * (1 + is_mapping(raw[at]))
                continue
            at = start if count == 0 else end_of(raw, at, len(raw))
            if at < 0:  # a text that ends beyond the buffer
                break
        values -= 1
        while not values and left:
            starts.pop()
            values = left.pop()
    return starts


#: Bytes that are decoded in one call if a buffer is `LARGE`: 40,000 keys at most, or 130,000 numbers of one byte.
PIECE = 2**17
#: Below this level the decoder reads values as a whole: it has a limit of its own for nesting.
_DEEPEST = 64
_NIL = b"\xc0"
_FLOATS = {0xCA: 5, 0xCB: 9}


def text(raw: Buffer) -> str:
    """Decodes UTF-8, a large text in pieces.

    Raises:
        UnicodeDecodeError: it is invalid.
    """
    if len(raw) <= PIECE:
        return str(raw, "utf-8")
    decode = _decoder().decode
    return "".join([decode(raw[at : at + PIECE], at + PIECE >= len(raw)) for at in range(0, len(raw), PIECE)])


def unpack_in_pieces(raw: Buffer, decode: Callable[[Buffer], Any]) -> Any:
    """Decodes a buffer as `decode` does; raises its errors, but their places are those in a piece."""
    if len(raw) <= LARGE:
        return decode(raw)
    try:
        value, end = _ChunkedReader(memoryview(raw), decode).value(0, 0)
    except IndexError:
        raise msgspec.DecodeError("Input data was truncated") from None
    if end != len(raw):
        raise msgspec.DecodeError(f"MessagePack data is malformed: trailing characters (byte {end})")
    return value


class _ChunkedReader:
    def __init__(self, raw: memoryview, decode: Callable[[Buffer], Any]) -> None:
        self._raw, self._decode = raw, decode
        #: Values that are known to be cut: else each level of nesting would visit them again.
        self._open: Sequence[int] = ()

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Decodes the value at a place; also returns its end.

        Raises:
            IndexError: the buffer ends within it. Others as the decoder does.
        """
        count, start = container(self._raw, at)
        if count < 0 or depth >= _DEEPEST:
            end = self._end(at)
            if self._raw[at] in _TEXTS and end - at > PIECE:
                return text(self._raw[at + 1 - LENGTHS[self._raw[at]] : end]), end
            return self._decode(self._raw[at:end]), end
        return (self._mapping if is_mapping(self._raw[at]) else self._list)(start, count, depth)

    def _list(self, at: int, count: int, depth: int) -> tuple[list[Any], int]:
        raw, made = self._raw, list[Any]()
        start, items = at, 0
        while count:
            if not items and (alike := self._floats(at, count)):
                items, at = alike, at + alike * _FLOATS[raw[at]]
            else:
                size = SIZES[raw[at]]
                end = at + size if size else self._end_within(at, start + PIECE)
                if end < 0:
                    made += self._items(start, at, items)
                    value, at = self.value(at, depth + 1)
                    made.append(value)
                    start, items, count = at, 0, count - items - 1
                    continue
                at, items = end, items + 1
            if at - start >= PIECE or items == count:
                made += self._items(start, at, items)
                start, items, count = at, 0, count - items
        return made, at

    def _mapping(self, at: int, count: int, depth: int) -> tuple[dict[Any, Any], int]:
        raw, made = self._raw, dict[Any, Any]()
        start, items = at, 0
        while count:
            key = at
            size = SIZES[raw[at]]
            at = at + size if size else self._end(at)
            size = SIZES[raw[at]]
            end = at + size if size else self._end_within(at, start + PIECE)
            if end < 0:
                made |= self._entries(start, key, items)
                (name,) = self._decode(map_head(1) + raw[key:at] + _NIL)  # a key that is a list becomes a tuple
                made[name], at = self.value(at, depth + 1)
                start, items, count = at, 0, count - items - 1
                continue
            at, items = end, items + 1
            if at - start >= PIECE or items == count:
                made |= self._entries(start, at, items)
                start, items, count = at, 0, count - items
        return made, at

    def _end_within(self, at: int, limit: int) -> int:
        """The end of the value at a place; -1 if it is to be cut."""
        if at in self._open:
            return -1
        end = end_of(self._raw, at, limit)
        if end < 0:
            self._open = open_at(self._raw, at, limit)[:_DEEPEST]
        return end

    def _end(self, at: int) -> int:
        end = end_of(self._raw, at, len(self._raw))
        if end < 0:
            raise IndexError(at)
        return end

    def _floats(self, at: int, count: int) -> int:
        """The number of equal-width floats at a place, if they fill a piece or the rest; else 0."""
        width = _FLOATS.get(self._raw[at], 0)
        many = width and min(count, PIECE // width + 1)
        heads = bytes(self._raw[at : at + many * width : width]) if many else b""
        return many if many and heads.count(heads[:1]) == many else 0

    def _items(self, start: int, end: int, count: int) -> list[Any]:
        found: list[Any] = self._decode(list_head(count) + self._raw[start:end])
        return found

    def _entries(self, start: int, end: int, count: int) -> dict[Any, Any]:
        found: dict[Any, Any] = self._decode(map_head(count) + self._raw[start:end])
        return found


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
    halves = split_rendered(buffer) if len(buffer) > LARGE else None
    if halves is None:
        return _decoded(_decode_answer, buffer)
    values, json = halves
    found = unpack(values)
    if type(found) is not dict:
        raise InvalidDocs(f"not a msgpack document: expected a mapping, got {type(found).__name__}")
    return Rendered(found, json)


def _decoded(decode: Callable[[Buffer], Any], buffer: Buffer) -> Any:
    try:
        return decode(buffer) if len(buffer) <= LARGE else unpack_in_pieces(buffer, decode)
    except (msgspec.DecodeError, ValueError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidDocs(f"not a msgpack document: {error}") from error


_encode = Writer({}).encode
_decode = msgspec.msgpack.Decoder(ext_hook=tensors.unpack).decode
_decode_answer = msgspec.msgpack.Decoder(ext_hook=unpack_rendered).decode
