"""Which stretches of an arena are taken: first fit, by whole pages, so that what was used last is used again.

Pure: no asyncio, clock, os or logging.
"""

from __future__ import annotations

from bisect import bisect_left, insort

PAGE = 4096


class Blocks:
    """The blocks of `size` bytes of memory."""

    __slots__ = ("_free", "_taken")

    def __init__(self, size: int) -> None:
        #: Offset and length of what is free, by offset; no two of them touch.
        self._free: list[tuple[int, int]] = [(0, size)]
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """Bytes that are in use."""
        return sum(self._taken.values())

    def take(self, length: int) -> int | None:
        """The offset of a block of so many bytes, or None where there is no room."""
        wanted = -(-max(length, 1) // PAGE) * PAGE
        for index, (offset, free) in enumerate(self._free):
            if free >= wanted:
                self._free[index : index + 1] = [(offset + wanted, free - wanted)] if free > wanted else []
                self._taken[offset] = wanted
                return offset
        return None

    def give_back(self, offset: int) -> bool:
        """Free a block; False where none begins there."""
        length = self._taken.pop(offset, 0)
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
