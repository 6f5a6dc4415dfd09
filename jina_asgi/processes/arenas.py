"""Memory that processes share: a large doc is written there once, and read where it lies.

Who keeps replicas makes an arena for each process that it speaks with, and one to write to itself where it has docs
of its own. They are memfds: no file has their name, and the system frees them with the last process that has them.
Readers map them privately, so that arrays may be written to and nobody else sees it; a block is free again once the
last array in it is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import mmap
import os
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np

from jina_asgi._arena import PAGE, Blocks
from jina_asgi._wire import Buffer, Reference
from jina_asgi._wire_heads import ArenaHead
from jina_asgi.errors import ProtocolError
from jina_asgi.tensors import LARGE
from jina_asgi.types import Parts

logger = logging.getLogger("jina_asgi")

#: Of address space; memory is taken as it is written to, and then used again.
ARENA_SIZE = 128 << 20
#: The mappings that a reader keeps though it reads nothing in them.
_UNREAD = 32
_ALIGNED = 64

_numbers = itertools.count(1)
Key = tuple[int, int]


class Arena:
    """Memory made by this process for another, open for as long as somebody has this object."""

    def __init__(self, size: int = ARENA_SIZE) -> None:
        self.number, self.size = next(_numbers), size
        self.descriptor = os.memfd_create("jina_asgi", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, size)
        weakref.finalize(self, os.close, self.descriptor)

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
    #: What keeps the arena open for others.
    keeps: object


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
        if self.memory is not None:
            self.memory.close()
        os.close(self._descriptor)


class Sharing(ABC):
    """One connection's docs in shared memory: those lent to the other side, and those borrowed from it.

    What is borrowed from one connection and sent on by another stays where it is. `start` must be called first.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._release: Callable[[list[Key]], None] = lambda keys: None
        self._lent: Lent | None = None
        self._is_read = False
        #: What the other side was told of: how often, and what it keeps here, if it was borrowed.
        self._given: dict[Key, tuple[int, object]] = {}
        self._mappings: dict[int, Mapping] = {}
        self._held: dict[Key, tuple[weakref.ref[Borrowed], Reference]] = {}
        self._gone: deque[tuple[Key, object]] = deque()
        self._is_telling = False

    def start(self, release: Callable[[list[Key]], None]) -> None:
        """`release` tells the other side what is needed no more."""
        self._release = release

    @abstractmethod
    def offer(self) -> ArenaHead | None:
        """The arena that the other side may write to."""

    @abstractmethod
    def accept(self, arena: ArenaHead) -> bool:
        """Take what the other side offers; whether that can be done."""

    def readable(self) -> None:
        """The other side can read what it is told of."""
        self._is_read = True

    def out(self, docs: Sequence[Buffer | Parts]) -> Sequence[Buffer | Reference]:
        """Docs as they are sent: where they lie, for large ones."""
        if all(len(doc) < LARGE for doc in docs):
            return [doc.joined() if isinstance(doc, Parts) else doc for doc in docs]
        return [self._sent(doc) for doc in docs]

    def find(self, reference: Reference) -> memoryview:
        """The doc that the other side has lent; it is given back when nobody looks at it any more.

        Raises:
            ProtocolError: there is no such place.
        """
        mapping = self._mappings.get(reference.arena) or self._map(reference)
        if not 0 < reference.length <= mapping.size - reference.offset:
            raise ProtocolError(f"an arena of {mapping.size} bytes has no doc of {reference.length} there")
        key = reference.arena, reference.offset
        if mapping.memory is None or key in self._held:  # who has it may have written to it
            found = memoryview(mapping.read(reference))
            self._dropped(key, None)
            return found
        doc = Borrowed(reference.length, np.uint8, mapping.memory, reference.offset)
        doc.reference, doc.keeps = reference, self._kept()
        mapping.held += 1
        self._held[key] = weakref.ref(doc, partial(self._dropped, key)), reference
        return doc.data

    def returned(self, keys: Sequence[Key]) -> None:
        """The other side needs these no more.

        Raises:
            ProtocolError: it was not given them.
        """
        for key in keys:
            count, kept = self._given.pop(key, (0, None))
            if not count:
                raise ProtocolError("docs were given back that had not been lent")
            if count > 1:
                self._given[key] = count - 1, kept
            elif kept is None and self._lent is not None:
                self._lent.returned(key[1])

    def detach(self) -> None:
        """Keep what is still read as it is, whatever becomes of the memory: the connection ends."""
        for held, _ in list(self._held.values()):
            if (doc := held()) is not None:
                doc[::PAGE] = doc[::PAGE]  # writing makes a page ours

    def lost(self) -> None:
        """The connection is gone: nothing that was lent is read any more."""
        self._given.clear()
        self._lent = None

    def _sent(self, doc: Buffer | Parts) -> Buffer | Reference:
        lies = self._lies(doc) if self._is_read and len(doc) >= LARGE else None
        if lies is None and self._is_read and len(doc) >= LARGE and (lent := self._writable()) is not None:
            reference = lent.lend(doc)
        else:
            reference = lies
        if reference is None:
            return doc.joined() if isinstance(doc, Parts) else doc
        key = reference.arena, reference.offset
        count, _ = self._given.get(key, (0, None))
        self._given[key] = count + 1, None if lies is None else doc
        return reference

    @abstractmethod
    def _opened(self, reference: Reference) -> int:
        """A descriptor of an arena, for whoever asks to close.

        Raises:
            ProtocolError: there is no such arena, or the other side may not name it.
        """

    def _lies(self, doc: Buffer | Parts) -> Reference | None:
        """Where a doc lies already that the other side can read there."""
        return None

    def _writable(self) -> Lent | None:
        """The arena that docs for the other side are written to."""
        return self._lent

    def _kept(self) -> object:
        """What a borrowed doc keeps alive."""
        return None

    def _map(self, reference: Reference) -> Mapping:
        if len(self._mappings) >= _UNREAD:
            for number, mapping in [(n, m) for n, m in self._mappings.items() if not m.held]:
                del self._mappings[number]
                mapping.close()
        mapping = self._mappings[reference.arena] = Mapping(self._opened(reference))
        return mapping

    def _dropped(self, key: Key, held: object) -> None:
        """Nobody looks at a doc any more; said in whatever thread its last reader was."""
        self._gone.append((key, held))
        if not self._is_telling:
            self._is_telling = True
            with suppress(RuntimeError):  # the loop is closed, and the connection with it
                self._loop.call_soon_threadsafe(self._give_back)

    def _give_back(self) -> None:
        self._is_telling = False
        keys = []
        while self._gone:
            key, held = self._gone.popleft()
            keys.append(key)
            if held is not None:
                self._forget(key)
        self._release(keys)

    def _forget(self, key: Key) -> None:
        """What was written to a doc here is gone; its place is as its owner wrote it."""
        reference = self._held.pop(key)[1]
        mapping = self._mappings[reference.arena]
        mapping.held -= 1
        assert mapping.memory is not None
        begin = reference.offset - reference.offset % PAGE
        mapping.memory.madvise(mmap.MADV_DONTNEED, begin, reference.offset + reference.length - begin)


class KeeperSharing(Sharing):
    """As whoever keeps replicas has it: the arenas are its own, and docs of others are only passed on."""

    def __init__(self) -> None:
        super().__init__()
        self._arena = Arena()
        self._own: Arena | None = None

    def offer(self) -> ArenaHead | None:
        return self._arena.head()

    def accept(self, arena: ArenaHead) -> bool:
        return False  # nobody offers us one

    def _opened(self, reference: Reference) -> int:
        if reference.arena != self._arena.number:
            raise ProtocolError(f"expected docs in the arena {self._arena.number}, not in {reference.arena}")
        return os.dup(self._arena.descriptor)

    def _lies(self, doc: Buffer | Parts) -> Reference | None:
        borrowed = doc.obj if isinstance(doc, memoryview) else None
        if isinstance(borrowed, Borrowed) and borrowed.reference.length == len(doc):
            return borrowed.reference
        return None

    def _writable(self) -> Lent | None:
        if self._lent is None:
            self._own = Arena()
            self._lent = Lent(self._own.head(), self._own.descriptor)
        return self._lent

    def _kept(self) -> object:
        return self._arena


class PeerSharing(Sharing):
    """As a web worker or a replica has it: it writes to the arena that it is offered, and reads any that it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self._keeper = 0

    def offer(self) -> ArenaHead | None:
        return None

    def accept(self, arena: ArenaHead) -> bool:
        self._keeper = arena.process
        try:
            descriptor = self._open(arena.descriptor, os.O_RDWR)
            try:
                self._lent = Lent(arena, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.info("no memory is shared with process %d, large docs are sent: %s", arena.process, error)
            return False
        self._is_read = True  # it is the keeper's own
        return True

    def _opened(self, reference: Reference) -> int:
        try:
            return self._open(reference.descriptor, os.O_RDONLY)
        except OSError as error:
            raise ProtocolError(f"the arena {reference.arena} cannot be read: {error}") from error

    def _open(self, descriptor: int, flags: int) -> int:
        return os.open(f"/proc/{self._keeper}/fd/{descriptor}", flags | os.O_CLOEXEC)
