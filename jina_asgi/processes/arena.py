"""Arenas of shared memory: creating, writing and reading them.

Arenas are memfds: no file has their name, and the system frees them with the last process that holds them. Readers
map them privately, so that they may write to arrays without any other process seeing it.
"""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from contextlib import suppress

import numpy as np

from jina_asgi.processes._blocks import PAGE, Blocks
from jina_asgi.protocols.frames._heads import ArenaHead
from jina_asgi.protocols.frames._layout import Buffer, Reference
from jina_asgi.types import Parts

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
