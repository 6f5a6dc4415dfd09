"""Allocates blocks of an arena: first fit, in whole pages, so that recently used memory is reused first.

Pure: no asyncio, clock, os or logging.
"""

from __future__ import annotations

from bisect import bisect_left, insort

PAGE = 4096


class Blocks:
    """An allocator over `size` bytes of memory."""

    __slots__ = ("_allocated", "_free")

    def __init__(self, size: int) -> None:
        #: Offset and length of each free block, by offset; adjacent free blocks are always merged.
        self._free: list[tuple[int, int]] = [(0, size)]
        self._allocated: dict[int, int] = {}

    @property
    def allocated(self) -> int:
        """The number of allocated bytes."""
        return sum(self._allocated.values())

    def allocate(self, length: int) -> int | None:
        """Allocates a block; returns its offset, or None if there is no room."""
        wanted = -(-max(length, 1) // PAGE) * PAGE
        for index, (offset, free) in enumerate(self._free):
            if free >= wanted:
                self._free[index : index + 1] = [(offset + wanted, free - wanted)] if free > wanted else []
                self._allocated[offset] = wanted
                return offset
        return None

    def free(self, offset: int) -> bool:
        """Frees a block; False if no block begins at this offset."""
        length = self._allocated.pop(offset, 0)
        if not length:
            return False
        at = bisect_left(self._free, (offset, 0))
        if at < len(self._free) and self._free[at][0] == offset + length:
            length += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == offset:
            before, free = self._free.pop(at - 1)
            offset, length = before, free + length
        insort(self._free, (offset, length))
        return True
