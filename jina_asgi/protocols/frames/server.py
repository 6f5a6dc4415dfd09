"""The server of the framed protocol: serves any Runner to one connection.

The connection owns a task for each request. Losing the connection cancels them all, which closes the users'
generators; draining lets them finish, refuses new requests and then closes.

It is given a Runner and no `Service`: both ends are processes of one server, so that no caller is authenticated here, and
the Runner has loaded before it is served.
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

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import log_failure, mark_retrieved, start_task
from jina_asgi.errors import ExecutorError, JinaASGIError, NotReady, ProtocolError, interrupted_error
from jina_asgi.errors._raised import future_safe, is_a, loggable
from jina_asgi.observability.current_call import CURRENT
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
from jina_asgi.protocols.frames._rules import Credit, ServerState, agree
from jina_asgi.protocols.frames.calls import are_large, encoded_answer, read_call, write_result
from jina_asgi.protocols.frames.connection import FrameConnection, MemorySharing
from jina_asgi.types import Call, Docs, Parts, Runner, Ticket

logger = logging.getLogger("jina_asgi")

#: How many bytes a connection may send before its hello was accepted.
HELLO_LIMIT = 1 << 16
#: How long a stream may run without yielding to the event loop, in seconds, when its generator never awaits.
YIELD_AFTER = 0.001
#: How long cancelled tasks may take to end, in seconds.
CANCEL_TIMEOUT = 5.0


class _NoRunner:
    """A placeholder for the Runner of a refused connection, which never calls it."""


_NO_RUNNER: Runner = _NoRunner()  # type: ignore[assignment]  # see the class


class _ActiveRequest:
    """One request that is being answered."""

    __slots__ = ("begun", "call", "cancelled", "credit", "more", "number", "stopped", "task", "ticket")

    def __init__(self, number: int, call: Call, credit: Credit | None, ticket: Ticket | None) -> None:
        self.number, self.call, self.credit = number, call, credit
        self.ticket = ticket
        #: Whether the client cancelled it, and whether it was stopped for that or another reason.
        self.cancelled = self.stopped = False
        #: Whether it was passed to the Runner; whether the Runner began it is not known here.
        self.begun = False
        self.more: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def release_ticket(self) -> None:
        """Releases its admission ticket, once."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            ticket.close()

    def cancel(self) -> None:
        """Cancels its task, once: a second time would interrupt the user's own clean-up."""
        if not self.stopped and self.task is not None:
            self.stopped = self.call.context.cancelled = True
            self.task.cancel()

    def add_credit(self, credit: CreditHead) -> None:
        if self.credit is None:
            raise ProtocolError(f"credit for request {self.number}, which is not a stream")
        self.credit.add(credit)
        if self.more is not None and not self.more.done() and self.credit.open:
            self.more.set_result(None)

    async def wait_for_credit(self) -> None:
        assert self.credit is not None
        while not self.credit.open:
            self.more = asyncio.get_running_loop().create_future()
            await self.more


class FrameServer(FrameConnection):
    """Serves `runner` to one connection; a server's protocol factory makes one for each.

    `limit` bounds a frame in bytes; a peer that sends no hello within `hello_timeout` seconds is disconnected.
    `admits`: calls take a place in the Runner's queue here, as the peer has none.
    `on_begin(request number)` is called when the work of a request begins, from any thread. `health` is called after
    each ping and returns why calls cannot be answered at the moment, or "". `sharing` is the memory shared with the
    client. `metrics` is called for each ping; its result is sent with the answer.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        limit: int = FRAME_LIMIT,
        hello_timeout: float = 10.0,
        admits: bool = True,
        on_begin: Callable[[int], None] | None = None,
        health: Callable[[], Awaitable[str]] | None = None,
        sharing: MemorySharing | None = None,
        metrics: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(HELLO_LIMIT, sharing)
        self._runner, self._limit, self._admits, self._on_begin = runner, limit, admits, on_begin
        self._health, self._metrics = health, metrics
        self._unhealthy_reason = ""
        self._state: ServerState[_ActiveRequest] = ServerState()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hello_timer = self._loop.call_later(hello_timeout, self.abort)

    def report_health(self, unhealthy_reason: str) -> None:
        """Sends the client the reason why calls cannot be answered, or "" when they can."""
        if self._state.hello is not None:
            self.send(_layout.NEWS, 0, write(NewsHead(unhealthy_reason)))

    async def drain(self, grace: float = 30.0) -> None:
        """Refuses new requests, lets the open ones finish for `grace` seconds, cancels the rest, and closes."""
        self._state.draining = True
        if self._state.hello is not None:
            self.send(_layout.GOODBYE, 0, write(GoodbyeHead(self._state.last)))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for request in list(self._state.open.values()):
            request.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_TIMEOUT)
        await self.close()

    async def wait_closed(self) -> None:
        """Waits until the connection is closed and none of its tasks runs any more."""
        await self.closed.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def frame_received(self, frame: Frame) -> None:
        request = self._state.receive(frame)
        if frame.kind == _layout.CALL or frame.kind == _layout.STREAM:
            self._start(frame)
        elif frame.kind == _layout.HELLO:
            self._greet()
        elif frame.kind >= _layout.SHARES:
            self.memory_received(frame)
        elif frame.kind == _layout.PING:
            self.send(_layout.PONG, 0, b"" if self._metrics is None else write(PongHead(dict(self._metrics()))))
            if self._health is not None:
                start_task(
                    self._report_health(self._health), log_failure("checking a replica's health"), kept=self._tasks
                )
        elif request is not None:
            if frame.kind == _layout.CREDIT:
                request.add_credit(read(frame, CreditHead))
            else:
                request.cancelled = True
                request.cancel()

    def lost(self, cause: BaseException | None) -> None:
        self._hello_timer.cancel()
        for request in list(self._state.open.values()):
            request.cancel()

    def pause_writing(self) -> None:
        """Stops reading from a client that does not read its answers, so that it cannot send more requests."""
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
            self.accept_arena(hello.arena)
        except JinaASGIError as error:
            self.refuse(error)

    def _start(self, frame: Frame) -> None:
        number = frame.request
        try:
            if self._state.draining:
                raise NotReady("draining: no new calls are taken")
            call, credit = read_call(frame, self._runner.endpoints)
            if self._on_begin is not None:
                call = msgspec.structs.replace(call, on_begin=partial(_begin, self._on_begin, number, call.docs))
            ticket = self._runner.admit(call.endpoint, size=frame.size) if self._admits else None
        except Exception as error:  # noqa: BLE001  # whatever a runner raises becomes this call's answer
            self._send_error(number, error)
            return
        is_stream = frame.kind == _layout.STREAM
        request = _ActiveRequest(number, call, credit if is_stream else None, ticket)
        self._state.open[number] = request
        work = self._stream(request) if is_stream else self._call(request)
        request.task = start_task(work, partial(self._finished, request))
        self._tasks.add(request.task)  # not by `kept`, which costs every call one more callback

    async def _report_health(self, health: Callable[[], Awaitable[str]]) -> None:
        unhealthy_reason = await health()
        if unhealthy_reason != self._unhealthy_reason:
            self._unhealthy_reason = unhealthy_reason
            self.report_health(unhealthy_reason)

    async def _call(self, request: _ActiveRequest) -> None:
        request.begun = True
        CURRENT.set((request.call.context, ""))
        try:
            result = await self._runner.call(request.call)
            if are_large(result.docs):
                head, docs = await parse_in_thread(None, write_result, result, in_pieces=True)
            else:
                head, docs = write_result(result)
            del result  # it may be large, while this waits
            if not self.is_writable:
                await self.writable()
            self._end(request, _layout.RESULT, head, docs)
        except BaseException as error:
            if is_a(error, asyncio.CancelledError):  # handled by `_finished`
                raise
            self._fail(request, future_safe(error))  # whatever a runner raises becomes this call's answer

    async def _stream(self, request: _ActiveRequest) -> None:
        request.begun = True
        CURRENT.set((request.call.context, ""))
        try:
            async with aclosing(self._runner.stream(request.call)) as items:
                await self._send_items(request, items)
            self._end(request, _layout.END)
        except BaseException as error:
            if is_a(error, asyncio.CancelledError):  # handled by `_finished`
                raise
            self._fail(request, future_safe(error))  # whatever a runner raises becomes this call's answer

    async def _send_items(self, request: _ActiveRequest, items: AsyncGenerator[Docs, None]) -> None:
        """Sends each item as it comes; the next one is not requested from the generator until it may be sent."""
        credit = request.credit
        assert credit is not None
        last_yield = time.monotonic()
        while True:
            if not credit.open:
                await request.wait_for_credit()
            if not self.is_writable:
                await self.writable()
            try:
                docs = await anext(items)
            except StopAsyncIteration:
                return
            large = are_large(docs)
            buffers = (
                await parse_in_thread(None, encoded_answer, docs, in_pieces=True) if large else encoded_answer(docs)
            )
            self.send(_layout.ITEM, request.number, b"", buffers)
            credit.spend(size_of(b"", buffers))
            if time.monotonic() - last_yield > YIELD_AFTER:
                await asyncio.sleep(0)
                last_yield = time.monotonic()

    def _end(self, request: _ActiveRequest, kind: int, head: bytes = b"", docs: Sequence[Buffer | Parts] = ()) -> None:
        """Sends the last frame of a request, after releasing its ticket so that the client can call again at once."""
        request.release_ticket()
        self.send(kind, request.number, head, docs)
        del self._state.open[request.number]

    def _fail(self, request: _ActiveRequest, error: BaseException) -> None:
        request.release_ticket()
        self._send_error(request.number, error)
        del self._state.open[request.number]

    def _send_error(self, number: int, error: BaseException) -> None:
        if not isinstance(error, JinaASGIError):
            logger.error("request %d failed", number, exc_info=loggable(error))
        self.send(_layout.ERROR, number, write_error(error))

    def _finished(self, request: _ActiveRequest, task: asyncio.Task[None]) -> None:
        """Called when the task of a request is done; sends the last frame if the task was cancelled."""
        self._tasks.discard(task)
        request.task = None  # it holds the error whose traceback holds a frame that names `request`
        request.release_ticket()
        if request.number not in self._state.open:
            return
        mark_retrieved(task)
        if request.cancelled:
            self._end(request, _layout.END)
        elif request.stopped:
            self._fail(request, interrupted_error("the executor was stopped", begun=request.begun))
        else:
            self._fail(request, ExecutorError("abandoned the call, though the caller had not cancelled it"))


class Refusal(FrameServer):
    """A connection that is answered with one error in place of a hello."""

    def __init__(self, error: JinaASGIError) -> None:
        super().__init__(_NO_RUNNER)
        self._error = error

    def data_received(self, data: bytes) -> None:
        """Waits for the client's hello: closing before it is read would lose the error."""
        if not self._is_ending:
            self._hello_timer.cancel()
            self.refuse(self._error)


def _begin(on_begin: Callable[[int], None], number: int, docs: Docs) -> Docs:
    on_begin(number)
    return docs
