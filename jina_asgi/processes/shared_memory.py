"""Docs in memory that processes share: a large doc is written there once, and read where it lies.

Who keeps replicas makes an arena for each process that it speaks with, and one to write to itself where it has docs
of its own. A block is free again once the last array in it is gone. An arena is closed when its connection has ended
and the last doc in it is gone, and its readers are told: a full collection of garbage, which a process that serves
hardly ever makes, is not waited for.
"""

from __future__ import annotations

import asyncio
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

from jina_asgi.documents.tensors import LARGE
from jina_asgi.errors import ProtocolError
from jina_asgi.processes._blocks import PAGE
from jina_asgi.processes.arena import Arena, Borrowed, Lent, Mapping
from jina_asgi.protocols.frames._heads import ArenaHead
from jina_asgi.protocols.frames._layout import Buffer, Reference
from jina_asgi.types import Parts

logger = logging.getLogger("jina_asgi")

#: The mappings that a reader keeps though it reads nothing in them.
_UNREAD = 32

Key = tuple[int, int]


def _unsaid(_: object) -> None:
    """There is no other side to tell."""


class Sharing(ABC):
    """One connection's docs in shared memory: those lent to the other side, and those borrowed from it.

    What is borrowed from one connection and sent on by another stays where it is. `start` must be called first. After
    `lost` nothing is lent or found any more, and views that are still out stay as they are.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._release: Callable[[list[Key]], None] = _unsaid
        self._end: Callable[[list[int]], None] = _unsaid
        self._lent: Lent | None = None
        self._is_read = self._is_lost = False
        #: What the other side was told of: how often, and what it keeps here, if it was borrowed.
        self._given: dict[Key, tuple[int, object]] = {}
        self._mappings: dict[int, Mapping] = {}
        self._held: dict[Key, tuple[weakref.ref[Borrowed], Reference]] = {}
        self._gone: deque[tuple[Key, object]] = deque()
        self._is_telling = False

    def start(self, release: Callable[[list[Key]], None], end: Callable[[list[int]], None]) -> None:
        """`release` tells the other side what is needed no more, `end` which arenas there are no more."""
        self._release, self._end = release, end

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

    def unsent(self, docs: Sequence[Buffer | Reference]) -> None:
        """What `out` gave was not sent after all: what was lent for it is free again."""
        self.returned([(doc.arena, doc.offset) for doc in docs if isinstance(doc, Reference)])

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
        doc.reference, doc.owner = reference, self._owner()
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
                doc[::PAGE] = doc[::PAGE].copy()  # writing makes a page ours; numpy would not write a view to itself

    def ended(self, arenas: Sequence[int]) -> None:
        """There are no such arenas any more, nor docs in them that this side has not given back."""
        for number in arenas:
            if (mapping := self._mappings.get(number)) is not None and not mapping.held:
                del self._mappings[number]
                mapping.close()

    def tell_end(self, arena: int) -> None:
        """Tell the other side, from any thread, that there is an arena no more whose docs it has given back."""
        with suppress(RuntimeError):  # the loop is closed, and the connection with it
            self._loop.call_soon_threadsafe(self._end, [arena])

    def lost(self) -> None:
        """The connection is gone: nothing that was lent is read any more."""
        self._is_lost = True
        self._release = self._end = _unsaid
        self._given.clear()
        self._lent = None
        self._let_go()

    @abstractmethod
    def _let_go(self) -> None:
        """Close what is open, once the connection is gone: called then, and when the last doc of a mapping is gone."""

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

    def _owner(self) -> object:
        """What a borrowed doc keeps, so that its arena stays open for others."""
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
        mapping = self._mappings.get(reference.arena)
        if mapping is None:  # closed with the connection
            return
        mapping.held -= 1
        assert mapping.memory is not None
        begin = reference.offset - reference.offset % PAGE
        mapping.memory.madvise(mmap.MADV_DONTNEED, begin, reference.offset + reference.length - begin)
        if self._is_lost and not mapping.held:
            self._let_go()


class KeeperSharing(Sharing):
    """As whoever keeps replicas has it: the arenas are its own, and docs of others are only passed on.

    With `lasting` the other side may read what it was given when the connection is gone, until `gone` is called.
    """

    def __init__(self, *, lasting: bool = False) -> None:
        super().__init__()
        self._is_lasting = lasting
        self._arena: Arena | None = None
        self._own: Arena | None = None
        #: Who was told of docs in the arena, to be told of its end.
        self._readers: weakref.WeakSet[Sharing] = weakref.WeakSet()

    def offer(self) -> ArenaHead | None:
        self._arena = self._arena or Arena()
        return self._arena.head()

    def accept(self, arena: ArenaHead) -> bool:
        return False  # nobody offers us one

    def lost(self) -> None:
        self._is_lost = True
        self._release = self._end = _unsaid
        if not self._is_lasting:
            self.gone()

    def gone(self) -> None:
        """The process on the other side reads nothing any more."""
        super().lost()

    def _let_go(self) -> None:
        """What others read of the arena was given to them by this process, which holds it as long as they do."""
        if self._own is not None:
            self._own.close()
        if self._arena is None or any(mapping.held for mapping in self._mappings.values()):
            return
        self.ended(list(self._mappings))
        self._arena.close()
        for reader in list(self._readers):
            reader.tell_end(self._arena.number)
        self._readers.clear()

    def _opened(self, reference: Reference) -> int:
        if self._arena is None or reference.arena != self._arena.number:
            offered = "which there is none of" if self._arena is None else str(self._arena.number)
            raise ProtocolError(f"expected docs in the arena of this connection, {offered}, not in {reference.arena}")
        return os.dup(self._arena.descriptor)

    def _lies(self, doc: Buffer | Parts) -> Reference | None:
        borrowed = doc.obj if isinstance(doc, memoryview) else None
        if isinstance(borrowed, Borrowed) and borrowed.reference.length == len(doc):
            if isinstance(borrowed.owner, KeeperSharing):
                borrowed.owner._readers.add(self)
            return borrowed.reference
        return None

    def _writable(self) -> Lent | None:
        if self._lent is None:
            self._own = Arena()
            self._lent = Lent(self._own.head(), self._own.descriptor)
        return self._lent

    def _owner(self) -> object:
        return self


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

    def _let_go(self) -> None:
        self.detach()
        self._held.clear()
        for mapping in self._mappings.values():
            mapping.close()
        self._mappings.clear()

    def _opened(self, reference: Reference) -> int:
        try:
            return self._open(reference.descriptor, os.O_RDONLY)
        except OSError as error:
            raise ProtocolError(f"the arena {reference.arena} cannot be read: {error}") from error

    def _open(self, descriptor: int, flags: int) -> int:
        return os.open(f"/proc/{self._keeper}/fd/{descriptor}", flags | os.O_CLOEXEC)
