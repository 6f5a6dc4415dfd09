"""Shares large docs between processes: a doc is written to shared memory once, and read where it lies.

The process that supervises replicas creates an arena for each process that it is connected to, and one for its own
docs. A block is free again once the last array in it is gone. An arena is closed when its connection has ended and
the last doc in it is gone, and its readers are then notified: a full garbage collection, which a serving process
hardly ever runs, is not waited for.
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
from jina_asgi.processes.arena import PAGE, Arena, ArenaMapping, ExportArena, ImportedDoc
from jina_asgi.protocols.frames._heads import ArenaHead
from jina_asgi.protocols.frames._layout import Buffer, Reference
from jina_asgi.types import Parts

logger = logging.getLogger("jina_asgi")

#: The most mappings that a reader keeps open although no doc in them is in use.
_UNREAD = 32

Key = tuple[int, int]


def _do_nothing(_: object) -> None:
    """Does nothing: there is no connection."""


class BaseSharing(ABC):
    """One connection's docs in shared memory: those exported to the peer, and those imported from it.

    An imported doc that is sent on over another connection stays where it is. `start` must be called first. After
    `lost` nothing can be exported or found any more, and existing views stay as they are.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._release: Callable[[list[Key]], None] = _do_nothing
        self._end: Callable[[list[int]], None] = _do_nothing
        self._exports: ExportArena | None = None
        self._is_read = self._is_lost = False
        #: The references that the peer holds: how often each was sent, and the doc to keep alive if it was imported.
        self._sent_references: dict[Key, tuple[int, object]] = {}
        self._mappings: dict[int, ArenaMapping] = {}
        self._imports: dict[Key, tuple[weakref.ref[ImportedDoc], Reference]] = {}
        self._dropped_imports: deque[tuple[Key, object]] = deque()
        self._is_release_scheduled = False

    def start(self, release: Callable[[list[Key]], None], end: Callable[[list[int]], None]) -> None:
        """Starts it: `release` sends the references that are no longer used, `end` the arenas that were closed."""
        self._release, self._end = release, end

    @abstractmethod
    def offer(self) -> ArenaHead | None:
        """The arena that the peer may write to, if this side has one."""

    @abstractmethod
    def accept(self, arena: ArenaHead) -> bool:
        """Accepts the arena that the peer offers; False if it cannot be opened."""

    def peer_can_read(self) -> None:
        """Notes that the peer can read shared memory."""
        self._is_read = True

    def prepare(self, docs: Sequence[Buffer | Parts]) -> Sequence[Buffer | Reference]:
        """Prepares docs for sending: writes large ones to shared memory and returns references to them."""
        if all(len(doc) < LARGE for doc in docs):
            return [doc.joined() if isinstance(doc, Parts) else doc for doc in docs]
        return [self._export(doc) for doc in docs]

    def cancel_send(self, docs: Sequence[Buffer | Reference]) -> None:
        """Frees the docs that `prepare` prepared when they were not sent after all."""
        self.released([(doc.arena, doc.offset) for doc in docs if isinstance(doc, Reference)])

    def find(self, reference: Reference) -> memoryview:
        """Finds a doc that the peer has exported; it is released when no array uses it any more.

        Raises:
            ProtocolError: the reference is invalid.
        """
        mapping = self._mappings.get(reference.arena) or self._map(reference)
        if not 0 < reference.length <= mapping.size - reference.offset:
            raise ProtocolError(f"an arena of {mapping.size} bytes has no doc of {reference.length} there")
        key = reference.arena, reference.offset
        if mapping.memory is None or key in self._imports:  # the holder of the first view may have written to it
            found = memoryview(mapping.read(reference))
            self._on_dropped(key, None)
            return found
        doc = ImportedDoc(reference.length, np.uint8, mapping.memory, reference.offset)
        doc.reference, doc.owner = reference, self._owner()
        mapping.held += 1
        self._imports[key] = weakref.ref(doc, partial(self._on_dropped, key)), reference
        return doc.data

    def released(self, keys: Sequence[Key]) -> None:
        """Frees docs that the peer has released.

        Raises:
            ProtocolError: the peer did not hold them.
        """
        for key in keys:
            count, kept = self._sent_references.pop(key, (0, None))
            if not count:
                raise ProtocolError("docs were released that had not been exported")
            if count > 1:
                self._sent_references[key] = count - 1, kept
            elif kept is None and self._exports is not None:
                self._exports.released(key[1])

    def detach(self) -> None:
        """Copies the docs that are still in use, so that they survive the end of the connection."""
        for held, _ in list(self._imports.values()):
            if (doc := held()) is not None:
                # Writing makes a private copy of a page; numpy would not write a view to itself
                doc[::PAGE] = doc[::PAGE].copy()

    def ended(self, arenas: Sequence[int]) -> None:
        """Unmaps arenas that the peer has closed; this side has released all docs in them."""
        for number in arenas:
            if (mapping := self._mappings.get(number)) is not None and not mapping.held:
                del self._mappings[number]
                mapping.close()

    def notify_ended(self, arena: int) -> None:
        """Notifies the peer, from any thread, that an arena was closed whose docs it has released."""
        with suppress(RuntimeError):  # the loop is closed, and the connection with it
            self._loop.call_soon_threadsafe(self._end, [arena])

    def lost(self) -> None:
        """Called when the connection is closed: frees everything that was exported."""
        self._is_lost = True
        self._release = self._end = _do_nothing
        self._sent_references.clear()
        self._exports = None
        self._close_unused()

    @abstractmethod
    def _close_unused(self) -> None:
        """Closes what is open after the connection is closed; called then, and when the last doc of a mapping is gone."""

    def _export(self, doc: Buffer | Parts) -> Buffer | Reference:
        existing = self._existing_reference(doc) if self._is_read and len(doc) >= LARGE else None
        if existing is None and self._is_read and len(doc) >= LARGE and (exports := self._writable()) is not None:
            reference = exports.export(doc)
        else:
            reference = existing
        if reference is None:
            return doc.joined() if isinstance(doc, Parts) else doc
        key = reference.arena, reference.offset
        count, _ = self._sent_references.get(key, (0, None))
        self._sent_references[key] = count + 1, None if existing is None else doc
        return reference

    @abstractmethod
    def _opened(self, reference: Reference) -> int:
        """Opens a descriptor of an arena, for the caller to close.

        Raises:
            ProtocolError: there is no such arena, or the peer may not name it.
        """

    def _existing_reference(self, doc: Buffer | Parts) -> Reference | None:
        """The reference of a doc that already lies where the peer can read it; else None."""
        return None

    def _writable(self) -> ExportArena | None:
        """The arena for docs that are sent to the peer."""
        return self._exports

    def _owner(self) -> object:
        """The object that an imported doc keeps alive, so that its arena stays open for other readers."""
        return None

    def _map(self, reference: Reference) -> ArenaMapping:
        if len(self._mappings) >= _UNREAD:
            for number, mapping in [(n, m) for n, m in self._mappings.items() if not m.held]:
                del self._mappings[number]
                mapping.close()
        mapping = self._mappings[reference.arena] = ArenaMapping(self._opened(reference))
        return mapping

    def _on_dropped(self, key: Key, held: object) -> None:
        """Called, in any thread, when no array uses an imported doc any more."""
        self._dropped_imports.append((key, held))
        if not self._is_release_scheduled:
            self._is_release_scheduled = True
            with suppress(RuntimeError):  # the loop is closed, and the connection with it
                self._loop.call_soon_threadsafe(self._release_dropped)

    def _release_dropped(self) -> None:
        self._is_release_scheduled = False
        keys = []
        while self._dropped_imports:
            key, held = self._dropped_imports.popleft()
            keys.append(key)
            if held is not None:
                self._forget(key)
        self._release(keys)

    def _forget(self, key: Key) -> None:
        """Drops the private copies of a doc's pages: the next reader sees what the writer wrote."""
        reference = self._imports.pop(key)[1]
        mapping = self._mappings.get(reference.arena)
        if mapping is None:  # closed with the connection
            return
        mapping.held -= 1
        assert mapping.memory is not None
        begin = reference.offset - reference.offset % PAGE
        mapping.memory.madvise(mmap.MADV_DONTNEED, begin, reference.offset + reference.length - begin)
        if self._is_lost and not mapping.held:
            self._close_unused()


class OwnerSharing(BaseSharing):
    """Shared memory in the process that supervises replicas: it owns the arenas, and only passes on the docs of others.

    With `lasting` the peer may read docs after the connection is closed, until `peer_exited` is called.
    """

    def __init__(self, *, lasting: bool = False) -> None:
        super().__init__()
        self._is_lasting = lasting
        self._arena: Arena | None = None
        self._own: Arena | None = None
        #: Connections whose peers were sent references into the arena, to be notified when it is closed.
        self._readers: weakref.WeakSet[BaseSharing] = weakref.WeakSet()

    def offer(self) -> ArenaHead | None:
        self._arena = self._arena or Arena()
        return self._arena.head()

    def accept(self, arena: ArenaHead) -> bool:
        return False  # peers offer no arenas

    def lost(self) -> None:
        self._is_lost = True
        self._release = self._end = _do_nothing
        if not self._is_lasting:
            self.peer_exited()

    def peer_exited(self) -> None:
        """Called when the peer's process has ended and reads no more."""
        super().lost()

    def _close_unused(self) -> None:
        """Closes the arena and notifies its readers, who got its docs from this process."""
        if self._own is not None:
            self._own.close()
        if self._arena is None or any(mapping.held for mapping in self._mappings.values()):
            return
        self.ended(list(self._mappings))
        self._arena.close()
        for reader in list(self._readers):
            reader.notify_ended(self._arena.number)
        self._readers.clear()

    def _opened(self, reference: Reference) -> int:
        if self._arena is None or reference.arena != self._arena.number:
            offered = "which there is none of" if self._arena is None else str(self._arena.number)
            raise ProtocolError(f"expected docs in the arena of this connection, {offered}, not in {reference.arena}")
        return os.dup(self._arena.descriptor)

    def _existing_reference(self, doc: Buffer | Parts) -> Reference | None:
        imported = doc.obj if isinstance(doc, memoryview) else None
        if isinstance(imported, ImportedDoc) and imported.reference.length == len(doc):
            if isinstance(imported.owner, OwnerSharing):
                imported.owner._readers.add(self)
            return imported.reference
        return None

    def _writable(self) -> ExportArena | None:
        if self._exports is None:
            self._own = Arena()
            self._exports = ExportArena(self._own.head(), self._own.descriptor)
        return self._exports

    def _owner(self) -> object:
        return self


class PeerSharing(BaseSharing):
    """Shared memory in a web worker or a replica: it writes to the arena that it is offered, and reads any arena."""

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
                self._exports = ExportArena(arena, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.info("no memory is shared with process %d, large docs are sent: %s", arena.process, error)
            return False
        self._is_read = True  # the supervising process can always read its own arena
        return True

    def _close_unused(self) -> None:
        self.detach()
        self._imports.clear()
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
