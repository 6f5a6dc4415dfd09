"""The answering half of the framed protocol: serves any Runner to one connection.

The connection owns a task for each request. Losing the connection cancels them all, which closes the users'
generators; draining lets them finish, refuses new ones and then closes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from jina_asgi.concurrency.offload import beside
from jina_asgi.concurrency.tasks import begun, logged, seen
from jina_asgi.errors import ExecutorError, JinaASGIError, NotReady, ProtocolError, cut_short
from jina_asgi.errors._raised import carried, is_a, loggable
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import (
    MAGIC,
    VERSIONS,
    CreditHead,
    GoodbyeHead,
    Hello,
    NewsHead,
    PongHead,
    describe,
    read,
    write,
    write_error,
)
from jina_asgi.protocols.frames._layout import FRAME_LIMIT, Buffer, Frame, size_of
from jina_asgi.protocols.frames._rules import Answering, Credit, agree
from jina_asgi.protocols.frames.calls import are_large, encoded_answer, read_call, write_result
from jina_asgi.protocols.frames.connection import Connection, Sharing
from jina_asgi.types import Call, Docs, Parts, Runner, Ticket

logger = logging.getLogger(__name__)

#: What a connection may send before its hello is understood.
HELLO_LIMIT = 1 << 16
#: How long a stream may keep the loop to itself, in seconds, when its generator never waits.
TURN = 0.001
#: How long tasks that were cancelled may take to end, in seconds.
CANCEL_TIMEOUT = 5.0


class _Nobody:
    """No Runner: a refusal asks it nothing."""


_NOBODY: Runner = _Nobody()  # type: ignore[assignment]  # see there


class _Served:
    """One request being answered."""

    __slots__ = ("begun", "call", "cancelled", "credit", "more", "number", "stopped", "task", "ticket")

    def __init__(self, number: int, call: Call, credit: Credit | None, ticket: Ticket) -> None:
        self.number, self.call, self.credit = number, call, credit
        self.ticket: Ticket | None = ticket
        #: Whether the asking side cancelled it, and whether it was stopped, for that or another reason.
        self.cancelled = self.stopped = False
        #: Whether it was given to the Runner; what that did with it is not known here.
        self.begun = False
        self.more: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Give its place in the queue back, once."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            ticket.close()

    def cancel(self) -> None:
        """Stop it, once: a second time would interrupt the user's own clean-up."""
        if not self.stopped and self.task is not None:
            self.stopped = self.call.context.cancelled = True
            self.task.cancel()

    def give(self, credit: CreditHead) -> None:
        if self.credit is None:
            raise ProtocolError(f"credit for request {self.number}, which is no stream")
        self.credit.add(credit)
        if self.more is not None and not self.more.done() and self.credit.open:
            self.more.set_result(None)

    async def wait_for_credit(self) -> None:
        assert self.credit is not None
        while not self.credit.open:
            self.more = asyncio.get_running_loop().create_future()
            await self.more


class BeginningDocs(Docs):
    """Docs that tell when somebody looks at them as objects: an Executor's work begins with that."""

    __slots__ = ("_begins",)

    def __init__(self, docs: Docs, begins: Callable[[], None]) -> None:
        super().__init__(docs.codec, None, docs.encoded)
        self._begins = begins

    @property
    def typed(self) -> list[Any]:
        self._begins()
        return super().typed


class FrameServer(Connection):
    """Serves `runner` to one connection; the protocol factory of a server makes one for each.

    `limit` bounds a frame in bytes; a side that says no hello for `hello_timeout` seconds is cut off. `begins` is
    told a request's number as its work begins, in whatever thread that is. `health` says, after each ping, why nothing
    can be answered just now. `sharing` is the memory that it has in common with the other side. `figures` are told with
    the answer to each ping.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        limit: int = FRAME_LIMIT,
        hello_timeout: float = 10.0,
        begins: Callable[[int], None] | None = None,
        health: Callable[[], Awaitable[str]] | None = None,
        sharing: Sharing | None = None,
        figures: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(HELLO_LIMIT, sharing)
        self._runner, self._limit, self._begins = runner, limit, begins
        self._health, self._figures = health, figures
        self._trouble = ""
        self._state: Answering[_Served] = Answering()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hello_timer = self._loop.call_later(hello_timeout, self.abort)

    def tell(self, trouble: str) -> None:
        """Say why nothing can be answered just now; or, with nothing, that calls can."""
        if self._state.hello is not None:
            self.send(_layout.NEWS, 0, write(NewsHead(trouble)))

    async def drain(self, grace: float = 30.0) -> None:
        """Refuse new requests, let the open ones finish for `grace` seconds, cancel the rest, close."""
        self._state.draining = True
        if self._state.hello is not None:
            self.send(_layout.GOODBYE, 0, write(GoodbyeHead(self._state.last)))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for served in list(self._state.open.values()):
            served.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_TIMEOUT)
        await self.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and nothing that it started runs any more."""
        await self.closed.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def frame_received(self, frame: Frame) -> None:
        served = self._state.receive(frame)
        if frame.kind == _layout.CALL or frame.kind == _layout.STREAM:
            self._start(frame)
        elif frame.kind == _layout.HELLO:
            self._greet()
        elif frame.kind >= _layout.SHARES:
            self.memory_received(frame)
        elif frame.kind == _layout.PING:
            self.send(_layout.PONG, 0, b"" if self._figures is None else write(PongHead(dict(self._figures()))))
            if self._health is not None:
                begun(self._tell_health(self._health), logged("asking for a replica's health"), kept=self._tasks)
        elif served is not None:
            if frame.kind == _layout.CREDIT:
                served.give(read(frame, CreditHead))
            else:
                served.cancelled = True
                served.cancel()

    def lost(self, cause: BaseException | None) -> None:
        self._hello_timer.cancel()
        for served in list(self._state.open.values()):
            served.cancel()

    def pause_writing(self) -> None:
        """An asking side that does not read its answers gets to ask nothing more."""
        super().pause_writing()
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        assert self._transport is not None
        self._transport.resume_reading()

    def _greet(self) -> None:
        self._hello_timer.cancel()
        hello = self._state.hello
        assert hello is not None
        self.reader.limit, self.send_limit = self._limit, hello.limit
        try:
            endpoints = [describe(endpoint) for endpoint in self._runner.endpoints.values()]
            version = agree(hello.low, hello.high)
            arena = None if self.sharing is None else self.sharing.offer()
            answer = Hello(MAGIC, *VERSIONS, limit=self._limit, version=version, endpoints=endpoints, arena=arena)
            self.send(_layout.HELLO, 0, write(answer))
            self.take(hello.arena)
        except JinaASGIError as error:
            self.refuse(error)

    def _start(self, frame: Frame) -> None:
        number = frame.request
        try:
            if self._state.draining:
                raise NotReady("draining: no new calls are taken")
            call, credit = read_call(frame, self._runner.endpoints)
            if self._begins is not None:
                docs = BeginningDocs(call.docs, partial(self._begins, number))
                call = msgspec.structs.replace(call, docs=docs)
            ticket = self._runner.admit(
                call.endpoint, size=frame.size, tenant=call.context.tenant, priority=call.context.priority
            )
        except Exception as error:  # noqa: BLE001  # whatever a runner raises is this call's answer
            self._send_error(number, error)
            return
        is_stream = frame.kind == _layout.STREAM
        served = _Served(number, call, credit if is_stream else None, ticket)
        self._state.open[number] = served
        work = self._stream(served) if is_stream else self._call(served)
        served.task = begun(work, partial(self._finished, served))
        self._tasks.add(served.task)  # not by `kept`: that takes a callback more of every call

    async def _tell_health(self, health: Callable[[], Awaitable[str]]) -> None:
        trouble = await health()
        if trouble != self._trouble:
            self._trouble = trouble
            self.tell(trouble)

    async def _call(self, served: _Served) -> None:
        served.begun = True
        try:
            result = await self._runner.call(served.call)
            if are_large(result.docs):
                head, docs = await beside(None, write_result, result, in_pieces=True)
            else:
                head, docs = write_result(result)
            del result  # it may be large, while this waits
            if not self.is_writable:
                await self.writable()
            self._end(served, _layout.RESULT, head, docs)
        except BaseException as error:
            if is_a(error, asyncio.CancelledError):  # `_finished` tells of it
                raise
            self._fail(served, carried(error))  # whatever a runner raises is this call's answer

    async def _stream(self, served: _Served) -> None:
        served.begun = True
        try:
            async with aclosing(self._runner.stream(served.call)) as items:
                await self._send_items(served, items)
            self._end(served, _layout.END)
        except BaseException as error:
            if is_a(error, asyncio.CancelledError):  # `_finished` tells of it
                raise
            self._fail(served, carried(error))  # whatever a runner raises is this call's answer

    async def _send_items(self, served: _Served, items: AsyncGenerator[Docs, None]) -> None:
        """Each item as it comes; the generator is not asked for one that may not be sent."""
        credit = served.credit
        assert credit is not None
        turn = time.monotonic()
        while True:
            if not credit.open:
                await served.wait_for_credit()
            if not self.is_writable:
                await self.writable()
            try:
                docs = await anext(items)
            except StopAsyncIteration:
                return
            large = are_large(docs)
            buffers = await beside(None, encoded_answer, docs, in_pieces=True) if large else encoded_answer(docs)
            self.send(_layout.ITEM, served.number, b"", buffers)
            credit.spend(size_of(b"", buffers))
            if time.monotonic() - turn > TURN:
                await asyncio.sleep(0)
                turn = time.monotonic()

    def _end(self, served: _Served, kind: int, head: bytes = b"", docs: Sequence[Buffer | Parts] = ()) -> None:
        """Send the last frame of a request, whose place in the queue is free before its caller can ask again."""
        served.leave()
        self.send(kind, served.number, head, docs)
        del self._state.open[served.number]

    def _fail(self, served: _Served, error: BaseException) -> None:
        served.leave()
        self._send_error(served.number, error)
        del self._state.open[served.number]

    def _send_error(self, number: int, error: BaseException) -> None:
        if not isinstance(error, JinaASGIError):
            logger.error("request %d failed", number, exc_info=loggable(error))
        self.send(_layout.ERROR, number, write_error(error))

    def _finished(self, served: _Served, task: asyncio.Task[None]) -> None:
        """The task of a request is over; if it was cancelled, its last frame is still to be sent."""
        self._tasks.discard(task)
        served.task = None  # it holds the error whose traceback holds a frame that names `served`
        served.leave()
        if served.number not in self._state.open:
            return
        seen(task)
        if served.cancelled:
            self._end(served, _layout.END)
        elif served.stopped:
            self._fail(served, cut_short("the executor was stopped", begun=served.begun))
        else:
            self._fail(served, ExecutorError("gave the call up, though nobody had cancelled it"))


class Refusal(FrameServer):
    """A connection that is told one error, in place of a hello."""

    def __init__(self, error: JinaASGIError) -> None:
        super().__init__(_NOBODY)
        self._error = error

    def data_received(self, data: bytes) -> None:
        """The other side's hello: closing before it is read would lose what we say."""
        if not self._is_ending:
            self._hello_timer.cancel()
            self.refuse(self._error)
