"""Memory that processes share: arenas, what is written to them, and what is read there.

Arenas are memfds: no file has their name, and the system frees them with the last process that has them. Readers map
them privately, so that arrays may be written to and nobody else sees it.
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

#: Of address space; memory is taken as it is written to, and then used again.
ARENA_SIZE = 128 << 20
_ALIGNED = 64

_numbers = itertools.count(1)


class Arena:
    """Memory made by this process for another, open until it is closed."""

    def __init__(self, size: int = ARENA_SIZE) -> None:
        self.number, self.size = next(_numbers), size
        self.descriptor = os.memfd_create("jina_asgi", os.MFD_CLOEXEC)
        #: Called to close it; again does nothing.
        self.close = weakref.finalize(self, os.close, self.descriptor)
        os.ftruncate(self.descriptor, size)

    def head(self) -> ArenaHead:
        """What another process must know to find it."""
        return ArenaHead(self.number, os.getpid(), self.descriptor, self.size)


class Lent:
    """An arena that this process writes to."""

    def __init__(self, arena: ArenaHead, descriptor: int) -> None:
        self._arena, self._memory = arena, mmap.mmap(descriptor, arena.size)
        self._blocks = Blocks(arena.size)

    def lend(self, doc: Buffer | Parts) -> Reference | None:
        """Where a doc lies now; None where there is no room."""
        buffers, before = (doc.buffers, doc.aligned) if isinstance(doc, Parts) else ([doc], 0)
        shift = -before % _ALIGNED
        block = self._blocks.take(shift + len(doc))
        if block is None:
            return None
        at = block + shift
        for buffer in buffers:
            self._memory[at : at + len(buffer)] = buffer
            at += len(buffer)
        return Reference(self._arena.arena, self._arena.descriptor, block + shift, len(doc))

    def returned(self, offset: int) -> bool:
        """Free what was lent; False where nothing was."""
        return self._blocks.give_back(offset - offset % PAGE)


class Borrowed(np.ndarray):
    """The bytes of a doc in another's arena; whoever looks at them keeps this.

    Its buffer is no array: numpy would have arrays made of this one keep that one instead.
    """

    reference: Reference
    #: What has the arena open, where that is this process's own: for as long as this is there.
    owner: object


class Mapping:
    """An arena as a reader has it: `memory` is private, and None where the system gives no room for it.

    `held` counts the docs in it that somebody looks at.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.size, self.held = descriptor, os.fstat(descriptor).st_size, 0
        self.memory: mmap.mmap | None = None
        with suppress(OSError):
            self.memory = mmap.mmap(descriptor, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)

    def read(self, reference: Reference) -> bytes:
        """A copy of a doc as its owner wrote it."""
        return os.pread(self._descriptor, reference.length, reference.offset)

    def close(self) -> None:
        """Let go of it; the system takes the memory back with the last view into it that is still out."""
        self.memory = None
        os.close(self._descriptor)
