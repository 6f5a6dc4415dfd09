"""Arenas of shared memory: creating, writing and reading them.

Arenas are memfds: no file has their name, and the system frees them with the last process that holds them. Readers
map them privately, so that they may write to arrays without any other process seeing it.

Allocates blocks of an arena: first fit, in whole pages, so that recently used memory is reused first.

Pure: no asyncio, clock, os or logging.

Records which requests a process has begun, in a page of memory that outlives the process.

A request's number is written when its work begins. The page is still readable after the process was killed, so that
requests that had not begun can safely be retried elsewhere.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import threading
import weakref
from bisect import bisect_left, insort
from contextlib import suppress

import numpy as np

from jina_asgi.protocols.frames._heads import ArenaHead
from jina_asgi.protocols.frames._layout import Buffer, Reference
from jina_asgi.types import Parts

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


#: Bytes of address space; physical memory is taken when it is first written to, and then reused.
ARENA_SIZE = 128 << 20
_ALIGNED = 64

_numbers = itertools.count(1)


class Arena:
    """Shared memory that this process created, open until it is closed."""

    def __init__(self, size: int = ARENA_SIZE) -> None:
        self.number, self.size = next(_numbers), size
        self.descriptor = os.memfd_create("jina_asgi", os.MFD_CLOEXEC)
        #: Closes the arena; calling it again does nothing.
        self.close = weakref.finalize(self, os.close, self.descriptor)
        os.ftruncate(self.descriptor, size)

    def head(self) -> ArenaHead:
        """The description that another process needs to open it."""
        return ArenaHead(self.number, os.getpid(), self.descriptor, self.size)


class ExportArena:
    """An arena that this process writes docs to, for another process to read."""

    def __init__(self, arena: ArenaHead, descriptor: int) -> None:
        self._arena, self._memory = arena, mmap.mmap(descriptor, arena.size)
        self._blocks = Blocks(arena.size)

    def export(self, doc: Buffer | Parts) -> Reference | None:
        """Copies a doc into the arena; returns its reference, or None if there is no room."""
        buffers, before = (doc.buffers, doc.aligned) if isinstance(doc, Parts) else ([doc], 0)
        shift = -before % _ALIGNED
        block = self._blocks.allocate(shift + len(doc))
        if block is None:
            return None
        at = block + shift
        for buffer in buffers:
            self._memory[at : at + len(buffer)] = buffer
            at += len(buffer)
        return Reference(self._arena.arena, self._arena.descriptor, block + shift, len(doc))

    def released(self, offset: int) -> bool:
        """Frees the block of a doc; False if no doc was there."""
        return self._blocks.free(offset - offset % PAGE)


class ImportedDoc(np.ndarray):
    """The bytes of a doc in another process's arena; arrays made of them keep this object alive.

    It is made on a memory map and not on an array: numpy would let arrays keep that array alive instead of this one.
    """

    reference: Reference
    #: Keeps the arena open as long as this doc lives, if the arena belongs to this process.
    owner: object


class ArenaMapping:
    """A reader's private mapping of an arena; `memory` is None if the system has no address space for it.

    `held` counts the docs in it that are still in use.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.size, self.held = descriptor, os.fstat(descriptor).st_size, 0
        self.memory: mmap.mmap | None = None
        with suppress(OSError):
            self.memory = mmap.mmap(descriptor, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)

    def read(self, reference: Reference) -> bytes:
        """Copies a doc as its writer wrote it."""
        return os.pread(self._descriptor, reference.length, reference.offset)

    def close(self) -> None:
        """Closes the mapping; the system reclaims the memory with the last view into it."""
        self.memory = None
        os.close(self._descriptor)


_PLACES = 512
_NUMBER = struct.Struct("<Q")


class StartedRequests:
    """The page, shared by descriptor. Each slot holds the highest begun number of the requests that share it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, _PLACES * _NUMBER.size)
        self._writing = threading.Lock()

    @classmethod
    def made(cls) -> StartedRequests:
        """Creates a page for a child process to inherit; the system frees it with the last process that holds it."""
        descriptor = os.memfd_create("jina-asgi-marks", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _PLACES * _NUMBER.size)
        return cls(descriptor)

    def begin(self, number: int) -> None:
        """Records that the work of this request begins now; callable from any thread."""
        with self._writing:
            if not self.begun(number):  # else a later request in the same slot began first: its number stands for both
                _NUMBER.pack_into(self._page, number % _PLACES * _NUMBER.size, number)

    def begun(self, number: int) -> bool:
        """Whether the work of this request has begun. A later request in the same slot counts as proof."""
        last: int = _NUMBER.unpack_from(self._page, number % _PLACES * _NUMBER.size)[0]
        return last >= number

    def close(self) -> None:
        """Closes the page; calling it again does nothing."""
        if not self._page.closed:
            self._page.close()
            os.close(self.descriptor)
