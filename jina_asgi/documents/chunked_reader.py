"""Decodes large msgpack in pieces, so that other threads run in between: a decoder holds the GIL until it has read the
whole buffer.

Lists and mappings are cut between their items; the decoder reads small values itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jina_asgi.documents._msgpack_layout import SIZES, Buffer, container, end_of, is_mapping, open_at
from jina_asgi.documents._sizes import LARGE
from jina_asgi.documents.writers import list_head, map_head

#: Bytes that are decoded in one call if a buffer is `LARGE`: 40,000 keys at most, or 130,000 numbers of one byte.
PIECE = 2**17
#: Below this level the decoder reads values as a whole: it has a limit of its own for nesting.
_DEEPEST = 64
_FLOATS = {0xCA: 5, 0xCB: 9}


def unpack_in_pieces(raw: Buffer, decode: Callable[[Buffer], Any]) -> Any:
    """Decodes a buffer as `decode` does; raises its errors."""
    if len(raw) <= LARGE:
        return decode(raw)
    try:
        value, end = _ChunkedReader(memoryview(raw), decode).value(0, 0)
    except (IndexError, TypeError):  # it is broken, or a key is a list
        return decode(raw)
    return value if end == len(raw) else decode(raw)


class _ChunkedReader:
    def __init__(self, raw: memoryview, decode: Callable[[Buffer], Any]) -> None:
        self._raw, self._decode = raw, decode
        #: Values that are known to be cut: else each level of nesting would visit them again.
        self._open: Sequence[int] = ()

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Decodes the value at a place; also returns its end.

        Raises:
            IndexError: the buffer ends within it. TypeError: a key is a list. Others as the decoder does.
        """
        count, start = container(self._raw, at)
        if count < 0 or depth >= _DEEPEST:
            end = self._end(at)
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
                name = self._decode(raw[key:at])
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
