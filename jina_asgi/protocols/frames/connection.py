"""The base of both connections of the framed protocol: reads and writes frames.

All frames of one turn of the event loop leave in one write. Docs pass as opaque buffers: nothing here decodes them.
The sides are `client` and `server`; the rules of the protocol are in `_rules`, the encoding of calls in `calls`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from jina_asgi.errors import (
    JinaASGIError,
    ProtocolError,
    TooLarge,
)
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import ArenaHead, EndedHead, ReleaseHead, read, write, write_error
from jina_asgi.protocols.frames._layout import FRAME_LIMIT, Buffer, Frame, FrameReader, Reference, write_frame
from jina_asgi.types import Parts

logger = logging.getLogger("jina_asgi")

#: How many bytes may wait to be written before calls and streams wait too.
WRITE_HIGH = 256 << 10


class MemorySharing(Protocol):
    """Shared memory of both ends of a connection, for large docs; implemented by `processes.shared_memory`."""

    def start(self, release: Callable[[list[tuple[int, int]]], None], end: Callable[[list[int]], None], /) -> None: ...
    def offer(self) -> ArenaHead | None: ...
    def accept(self, arena: ArenaHead, /) -> bool: ...
    def peer_can_read(self) -> None: ...
    def prepare(self, docs: Sequence[Buffer | Parts], /) -> Sequence[Buffer | Reference]: ...
    def cancel_send(self, docs: Sequence[Buffer | Reference], /) -> None: ...
    def find(self, reference: Reference, /) -> memoryview: ...
    def released(self, docs: Sequence[tuple[int, int]], /) -> None: ...
    def ended(self, arenas: Sequence[int], /) -> None: ...
    def detach(self) -> None: ...
    def lost(self) -> None: ...


class FrameConnection(asyncio.Protocol, ABC):
    """One end of a connection: converts between bytes and frames, applies flow control, reports the loss once.

    Subclasses override `frame_received` and `lost`. Create instances inside a running event loop.
    """

    #: How long the peer may take to read the rest when this side closes, in seconds.
    close_timeout = 5.0

    def __init__(self, limit: int = FRAME_LIMIT, sharing: MemorySharing | None = None) -> None:
        self.reader = FrameReader(limit)
        self.sharing = sharing
        if sharing is not None:
            self.reader.find = sharing.find
            sharing.start(self._send_release, self._send_arenas_closed)
        #: The largest frame that the peer accepts, in bytes.
        self.send_limit = limit
        self.is_lost = False
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._cause: ProtocolError | None = None
        self._is_ending = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self._out: list[Buffer] = []
        self._out_size = 0
        self._writable = asyncio.Event()
        self._writable.set()

    @abstractmethod
    def frame_received(self, frame: Frame) -> None:
        """Processes one frame.

        Raises:
            ProtocolError: the frame breaks the rules; the connection ends.
        """

    @abstractmethod
    def lost(self, cause: BaseException | None) -> None:
        """Called once when the connection is closed; `cause` is the error that broke it, if any."""

    def send(self, kind: int, number: int, head: bytes = b"", docs: Sequence[Buffer | Parts] = ()) -> None:
        """Sends a frame in this turn of the event loop; does nothing once the connection is closed.

        Raises:
            TooLarge: the frame is over the peer's limit.
        """
        if self.is_lost:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        outgoing: Sequence[Buffer | Reference] = ()
        if docs:
            outgoing = _joined(docs) if self.sharing is None else self.sharing.prepare(docs)
        try:
            self._out_size += write_frame(self._out, kind, number, head, outgoing, self.send_limit)
        except TooLarge:
            if self.sharing is not None:
                self.sharing.cancel_send(outgoing)
            raise
        if self._out_size > WRITE_HIGH:
            self._flush()

    @property
    def is_writable(self) -> bool:
        """Whether the peer reads fast enough for more to be sent."""
        return self._writable.is_set()

    async def writable(self) -> None:
        """Waits until more may be sent, or the connection is closed."""
        while not self._writable.is_set():
            await self._writable.wait()

    def break_off(self, cause: ProtocolError) -> None:
        """Ends the connection because the peer broke the rules."""
        if self._cause is None and not self.is_lost:
            logger.warning("a frame connection ends: %r", cause.message)
            self._cause = cause
            self.refuse(cause)

    def refuse(self, error: JinaASGIError) -> None:
        """Sends the error that ends the connection, and ends it."""
        self._is_ending = True
        self.send(_layout.ERROR, 0, write_error(error))
        self._flush()
        assert self._transport is not None
        self._transport.close()
        self._abort_timer = self._loop.call_later(self.close_timeout, self.abort)

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None and not self.is_lost:
            self._transport.abort()

    async def close(self) -> None:
        """Sends the rest and closes the connection; at once if the peer takes too long to read it."""
        if self._transport is None or self.is_lost:
            return
        self._flush()
        self._transport.close()
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.closed.wait()
        except TimeoutError:
            self._transport.abort()
            await self.closed.wait()
        except BaseException:
            self._transport.abort()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self.reader.feed(data):
                if self._is_ending:
                    return
                self.frame_received(frame)
        except ProtocolError as error:
            self.break_off(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._out.clear()
        self._writable.set()
        if self.sharing is not None:
            self.sharing.lost()
        self.lost(self._cause or exc)
        self.closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def memory_received(self, frame: Frame) -> None:
        """Processes a frame about shared memory.

        Raises:
            ProtocolError: the frame names memory that this side has not shared.
        """
        if self.sharing is None:
            raise ProtocolError("no memory is shared on this connection")
        if frame.kind == _layout.SHARES:
            self.sharing.peer_can_read()
        elif frame.kind == _layout.ENDED:
            self.sharing.ended(read(frame, EndedHead).arenas)
        else:
            self.sharing.released(read(frame, ReleaseHead).docs)

    def accept_arena(self, arena: ArenaHead | None) -> None:
        """Starts to use the shared memory that the peer offers, if it offers any."""
        if arena is not None and self.sharing is not None and self.sharing.accept(arena):
            self.send(_layout.SHARES, 0)

    def _send_release(self, docs: list[tuple[int, int]]) -> None:
        self.send(_layout.RELEASE, 0, write(ReleaseHead(docs)))

    def _send_arenas_closed(self, arenas: list[int]) -> None:
        self.send(_layout.ENDED, 0, write(EndedHead(arenas)))

    def _flush(self) -> None:
        out, self._out, self._out_size = self._out, [], 0
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))


def _joined(docs: Sequence[Buffer | Parts]) -> Sequence[Buffer]:
    return [doc.joined() if isinstance(doc, Parts) else doc for doc in docs]
