"""The client's connection: sends requests, and gives each waiting call its answer exactly once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from jina_asgi.concurrency.lifecycle import health_signal
from jina_asgi.errors import DeadlineExceeded, JinaASGIError, NotReady, ProtocolError, interrupted_error
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import MAGIC, VERSIONS, ErrorHead, Hello, error_of, read, write
from jina_asgi.protocols.frames._layout import Buffer, Frame
from jina_asgi.protocols.frames._rules import ClientState, PendingRequest, Window
from jina_asgi.protocols.frames.connection import FrameConnection, MemorySharing
from jina_asgi.types import Parts

#: A deadline further away than this (seconds) gets no timer.
FAR_DEADLINE = 10.0**7


class CallAnswer:
    """Receives the one frame that answers a call."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Frame] = loop.create_future()

    def put(self, frame: Frame) -> None:
        if not self.future.done():
            self.future.set_result(frame)

    def fail(self, error: JinaASGIError, *, now: bool = False) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class StreamFrames:
    """Receives the frames of a stream in order; the last of them ends it."""

    __slots__ = ("_error", "_frames", "_loop", "_waiter", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._frames: deque[Frame] = deque()
        self._error: JinaASGIError | None = None
        self._waiter: asyncio.Future[None] | None = None
        #: Whether nothing runs for this stream in the server any more, or the server cannot be reached.
        self.over = False

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self.over = self.over or frame.kind != _layout.ITEM
        self._wake()

    def fail(self, error: JinaASGIError, *, now: bool = False) -> None:
        """Ends with an error: after the frames that came before it, or, with `now`, at the next step."""
        if now:
            self._frames.clear()
        if self._error is None:
            self._error = error
        self.over = True
        self._wake()

    async def next(self) -> Frame:
        while not self._frames:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._frames.popleft()

    async def ended(self) -> None:
        while not self.over:
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


FrameHolder = CallAnswer | StreamFrames
#: An encoded call: the head and docs of a frame.
EncodedCall = tuple[bytes, Sequence[Buffer | Parts]]


class FrameClientConnection(FrameConnection):
    """A client's connection. `has_begun(request number)` says whether the server had begun a request."""

    def __init__(self, limit: int, has_begun: Callable[[int], bool], sharing: MemorySharing | None = None) -> None:
        super().__init__(limit, sharing)
        self._limit, self._has_begun = limit, has_begun
        self._pings: deque[asyncio.Future[None]] = deque()
        self.state: ClientState[FrameHolder] = ClientState()
        self.greeted: asyncio.Future[Hello] = self._loop.create_future()
        self.leaving = False
        #: Set once the server takes no new calls.
        self.goodbye = asyncio.Event()
        self._idle: asyncio.Event = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not (self.leaving or self.is_lost or self.state.last_started is not None)

    @property
    def why_closed(self) -> str:
        return "the connection to the executor was lost" if self.is_lost else "the executor is stopping"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        arena = None if self.sharing is None else self.sharing.offer()
        self.send(_layout.HELLO, 0, write(Hello(MAGIC, *VERSIONS, limit=self._limit, arena=arena)))

    def frame_received(self, frame: Frame) -> None:
        request = self.state.receive(frame)
        if request is not None:
            if request.window is not None or not request.cancelled:
                request.holder.put(frame)
            self._note_idle()
        elif frame.kind == _layout.PONG:
            if self._pings and not (waiter := self._pings.popleft()).done():
                waiter.set_result(None)
        elif frame.kind == _layout.GOODBYE:
            self.goodbye.set()
        elif frame.kind == _layout.NEWS:
            health_signal.notify()
        elif frame.kind >= _layout.SHARES:
            self.memory_received(frame)
        elif frame.kind == _layout.HELLO and self.state.hello is not None:
            self.send_limit = self.state.hello.limit
            self.accept_arena(self.state.hello.arena)
            if not self.greeted.done():
                self.greeted.set_result(self.state.hello)

    def lost(self, cause: BaseException | None) -> None:
        self.goodbye.set()
        if not self.greeted.done():
            refusal = self.state.refusal or NotReady("the other side closed the connection before its hello")
            refusal.__cause__ = cause
            self.greeted.set_exception(
                cause if isinstance(cause, ProtocolError) and not self.state.refusal else refusal
            )
            self.greeted.exception()  # the caller that connected may have gone: the error then has no reader
        for waiter in self._pings:
            if not waiter.done():
                waiter.set_result(None)
        for request in self.state.open.values():
            error = self._cut_short(request, "the connection to the executor was lost")
            error.__cause__ = cause
            request.holder.fail(error)
        self.state.open.clear()
        self.state.waiting = 0
        self._note_idle()

    def send_request(
        self, kind: int, call: EncodedCall, holder: FrameHolder, window: Window | None = None
    ) -> PendingRequest[FrameHolder]:
        """Sends a call.

        Raises:
            TooLarge: it is over the other side's limit.
        """
        head, docs = call
        request = self.state.open_request(holder, window)
        try:
            self.send(kind, request.number, head, docs)
        except JinaASGIError:
            self.state.withdraw(request)
            raise
        return request

    async def ping(self) -> None:
        """Waits until the server's event loop has answered, or the connection is lost."""
        if self.is_lost:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(waiter)
        self.send(_layout.PING, 0)
        await waiter

    def cancel(self, request: PendingRequest[FrameHolder]) -> bool:
        """Sends the server a request's cancellation; False if it was over or cancelled already."""
        if not self.state.cancel(request):
            return False
        self.send(_layout.CANCEL, request.number)
        self._note_idle()
        return True

    def error_in(self, frame: Frame) -> JinaASGIError:
        """Decodes the error of a frame. If it is malformed the connection ends, and that protocol error is returned."""
        try:
            return error_of(read(frame, ErrorHead))
        except ProtocolError as error:
            self.break_off(error)
            return error

    def expire(self, request: PendingRequest[FrameHolder]) -> None:
        if self.cancel(request):
            request.holder.fail(DeadlineExceeded("the deadline passed while the call ran"), now=True)

    def timer(self, request: PendingRequest[FrameHolder], remaining: float | None) -> asyncio.TimerHandle | None:
        """The timer that fails a request at its deadline, whatever the server does."""
        return (
            None
            if remaining is None or remaining > FAR_DEADLINE
            else self._loop.call_later(remaining, self.expire, request)
        )

    async def finish(self, grace: float) -> None:
        """Refuses new calls, lets the open ones finish for `grace` seconds, cancels the rest, and closes."""
        self.leaving = True
        try:
            if self.state.waiting:
                async with asyncio.timeout(grace):
                    await self._idle.wait()
        except TimeoutError:
            for request in list(self.state.open.values()):
                if self.cancel(request):
                    request.holder.fail(self._cut_short(request, "the executor was stopped"))
        except BaseException:
            self.abort()
            raise
        if self.sharing is not None:
            self.sharing.detach()
        await self.close()

    def _cut_short(self, request: PendingRequest[FrameHolder], why: str) -> JinaASGIError:
        """The error for a request that was cut off: it may have begun, unless the server is known not to have begun it."""
        return interrupted_error(why, begun=self.state.started(request) and self._has_begun(request.number))

    def _note_idle(self) -> None:
        if self.leaving and not self.state.waiting:
            self._idle.set()
