"""The connection of the asking half: requests out, answers to whoever waits for them, each exactly once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from jina_asgi.errors import DeadlineExceeded, JinaASGIError, NotReady, ProtocolError, cut_short
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import MAGIC, VERSIONS, ErrorHead, Hello, error_of, read, write
from jina_asgi.protocols.frames._layout import Buffer, Frame
from jina_asgi.protocols.frames._rules import Asked, Asking, Window
from jina_asgi.protocols.frames.connection import Connection, Sharing
from jina_asgi.types import Parts

#: A deadline further away than this (seconds) gets no timer.
FAR = 10.0**7


class Reply:
    """What a call waits for: the frame that answers it."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Frame] = loop.create_future()

    def put(self, frame: Frame) -> None:
        if not self.future.done():
            self.future.set_result(frame)

    def fail(self, error: JinaASGIError, *, now: bool = False) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Inbox:
    """What a stream waits for: its frames in order, the last of which ends it."""

    __slots__ = ("_error", "_frames", "_loop", "_waiter", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._frames: deque[Frame] = deque()
        self._error: JinaASGIError | None = None
        self._waiter: asyncio.Future[None] | None = None
        #: Whether the far side has nothing running for this stream any more, or cannot be asked.
        self.over = False

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self.over = self.over or frame.kind != _layout.ITEM
        self._wake()

    def fail(self, error: JinaASGIError, *, now: bool = False) -> None:
        """End with an error: after what came before it, or, with `now`, at the next step."""
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


Holder = Reply | Inbox
#: A call as the head and docs of a frame.
Written = tuple[bytes, Sequence[Buffer | Parts]]


class Link(Connection):
    """The connection of a client. `begun` tells of a request's number whether the other side had begun it."""

    def __init__(self, limit: int, begun: Callable[[int], bool], sharing: Sharing | None = None) -> None:
        super().__init__(limit, sharing)
        self._limit, self._begun = limit, begun
        self._pings: deque[asyncio.Future[None]] = deque()
        self.state: Asking[Holder] = Asking()
        self.greeted: asyncio.Future[Hello] = self._loop.create_future()
        self.leaving = False
        #: Set once the other side takes no new calls.
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
        asked = self.state.receive(frame)
        if asked is not None:
            if asked.window is not None or not asked.cancelled:
                asked.holder.put(frame)
            self._note_idle()
        elif frame.kind == _layout.PONG:
            if self._pings and not (waiter := self._pings.popleft()).done():
                waiter.set_result(None)
        elif frame.kind == _layout.GOODBYE:
            self.goodbye.set()
        elif frame.kind >= _layout.SHARES:
            self.memory_received(frame)
        elif frame.kind == _layout.HELLO and self.state.hello is not None:
            self.send_limit = self.state.hello.limit
            self.take(self.state.hello.arena)
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
            self.greeted.exception()  # whoever connected may have left: then it is nobody's
        for waiter in self._pings:
            if not waiter.done():
                waiter.set_result(None)
        for asked in self.state.open.values():
            error = self._cut_short(asked, "the connection to the executor was lost")
            error.__cause__ = cause
            asked.holder.fail(error)
        self.state.open.clear()
        self.state.waiting = 0
        self._note_idle()

    def ask(self, kind: int, call: Written, holder: Holder, window: Window | None = None) -> Asked[Holder]:
        """Send a call.

        Raises:
            TooLarge: it is over the other side's limit.
        """
        head, docs = call
        asked = self.state.ask(holder, window)
        try:
            self.send(kind, asked.number, head, docs)
        except JinaASGIError:
            self.state.withdraw(asked)
            raise
        return asked

    async def ping(self) -> None:
        """Wait until the other side's loop has turned, or the connection is lost."""
        if self.is_lost:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._pings.append(waiter)
        self.send(_layout.PING, 0)
        await waiter

    def cancel(self, asked: Asked[Holder]) -> bool:
        """Tell the other side that nobody waits any more; False if the request was over or cancelled already."""
        if not self.state.cancel(asked):
            return False
        self.send(_layout.CANCEL, asked.number)
        self._note_idle()
        return True

    def error_in(self, frame: Frame) -> JinaASGIError:
        """The error that a frame carries; the other side's own mistake, which ends the connection, if none can be read."""
        try:
            return error_of(read(frame, ErrorHead))
        except ProtocolError as error:
            self.break_off(error)
            return error

    def expire(self, asked: Asked[Holder]) -> None:
        if self.cancel(asked):
            asked.holder.fail(DeadlineExceeded("the deadline passed while the call ran"), now=True)

    def timer(self, asked: Asked[Holder], remaining: float | None) -> asyncio.TimerHandle | None:
        """What ends a request at its deadline, whatever the other side does."""
        return None if remaining is None or remaining > FAR else self._loop.call_later(remaining, self.expire, asked)

    async def finish(self, grace: float) -> None:
        """Take nothing new, let what is open finish for `grace` seconds, cancel the rest, close."""
        self.leaving = True
        try:
            if self.state.waiting:
                async with asyncio.timeout(grace):
                    await self._idle.wait()
        except TimeoutError:
            for asked in list(self.state.open.values()):
                if self.cancel(asked):
                    asked.holder.fail(self._cut_short(asked, "the executor was stopped"))
        except BaseException:
            self.abort()
            raise
        if self.sharing is not None:
            self.sharing.detach()
        await self.close()

    def _cut_short(self, asked: Asked[Holder], why: str) -> JinaASGIError:
        """What a request that is not answered is told: the other side has begun it, unless it is known that it has not."""
        return cut_short(why, begun=self.state.started(asked) and self._begun(asked.number))

    def _note_idle(self) -> None:
        if self.leaving and not self.state.waiting:
            self._idle.set()
