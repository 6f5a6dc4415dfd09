"""One JSON WebSocket: many calls at once, each a task that its socket owns.

A call has one event on its way at most, and they take turns: so a reader that is slow pauses the generators, and no
stream holds up another. Each call ends in one event, "end" or "error"; the socket's end is the end of all of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, NamedTuple, Protocol

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from jina_asgi.endpoints import normalised
from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    InvalidRequest,
    NotReady,
    Overloaded,
    Unavailable,
    UnknownEndpoint,
)
from jina_asgi.protocols._socket_messages import PING, Asked, Cancelled, Events, Identity, Unread, read
from jina_asgi.protocols.bodies import JSON, answer
from jina_asgi.protocols.http import UNWRITABLE, EndpointApp, HttpOptions, Live, authenticate, unwritable, within
from jina_asgi.protocols.problems import problem
from jina_asgi.types import Call, Context, Runner

logger = logging.getLogger("jina_asgi")

_TURN = 0.001  # seconds of one call's events after which others get their turn
#: What `send` raises where the client is gone: a server's own kind of OSError, or Starlette's word for it.
_GONE = (OSError, WebSocketDisconnect)


class Lasting(Live, Protocol):
    """Where the Runner lives, and who says when that ends."""

    @property
    def leaving(self) -> bool: ...

    def follow(self, told: Callable[[], None]) -> None: ...

    def unfollow(self, told: Callable[[], None]) -> None: ...


class Closing(NamedTuple):
    """Why we close a socket."""

    code: int
    reason: str


class _Gone(Exception):  # an event, and nobody's error
    """The client is gone: nobody is told anything any more."""


class _Stopped(Exception):  # an event too
    """The client said "cancel"."""


class _Open:
    """One call. `sends`: its event is being sent, which is not to be interrupted; `begun`: its task has taken a step."""

    __slots__ = ("asked", "begun", "events", "ran_since", "sends", "stopped", "task", "until")

    def __init__(self, asked: Asked) -> None:
        self.asked: Asked | None = asked
        self.events = Events(asked.id)
        self.until = None if asked.timeout is None else time.monotonic() + asked.timeout
        self.task: asyncio.Task[None] | None = None
        self.sends = self.begun = self.stopped = False
        self.ran_since = 0.0

    def stop(self) -> None:
        """The client said "cancel"."""
        if not self.stopped and self.task is not None:
            self.stopped = True
            if self.begun and not self.sends:
                self.task.cancel()


class Socket:
    """One accepted WebSocket; `run` it to its end.

    Args:
        scope, receive, send: ASGI's.
        find: the application of each endpoint; raises NotReady while they are not known.
        live: where the Runner is.
        options: those of the application.
    """

    #: The call that spoke last, on any socket: one that never waits yields to the loop now and then.
    _speaking: ClassVar[_Open | None] = None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        find: Callable[[], Mapping[str, EndpointApp]],
        live: Lasting,
        options: HttpOptions,
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._find, self._live, self._options, self._limits = find, live, options, options.limits
        self._headers = Headers(raw=scope["headers"])
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.Lock()
        self._open: dict[Identity, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unadmitted = 0  # bytes of messages that have no place in the queue yet
        self._over = self._lost = self._draining = False
        self._finished = asyncio.Event()
        self._sent = self._loop.time()

    async def run(self) -> None:
        """Answer until the client leaves, breaks a rule of the protocol, or serving ends; then nothing runs any more."""
        reading = self._loop.create_task(self._read())
        finished = self._loop.create_task(self._finished.wait())
        timer = self._loop.create_task(self._keep_alive())
        self._live.follow(self._leave)
        if self._live.leaving:
            self._drain()
        try:
            await asyncio.wait([reading, finished], return_when=asyncio.FIRST_COMPLETED)
            closing = reading.result() if reading.done() else Closing(1001, "draining")
        finally:
            self._over = True
            self._live.unfollow(self._leave)
            await _ended({reading, finished, timer, *self._tasks})
        if closing is not None and not self._lost:
            try:
                await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
            except _GONE:
                logger.debug("a WebSocket's client left before it was closed")

    async def _read(self) -> Closing | None:
        """Begin calls and stop them, as the client says; why to close, or None where the client did."""
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                return None
            text = message.get("text")
            if text is None:
                return Closing(1003, "expected JSON as text, got a binary message")
            raw = text.encode("utf-8", "surrogatepass")
            if len(raw) > self._limits.body:
                return Closing(1009, f"expected at most {self._limits.body} bytes; `limits` of JinaASGI raises this")
            unread = self._take(read(raw))
            if unread is not None:
                identity = None if unread.id in self._open else unread.id
                try:
                    await self._write(None, self._problem(Events(identity), unread.error))
                except _Gone:
                    return None

    def _take(self, said: Asked | Cancelled | Unread) -> Unread | None:
        """Do what a message says; or what its client is to be told instead."""
        if isinstance(said, Unread):
            return said
        if isinstance(said, Asked):
            refused = self._refused(said)
            if refused is None:
                self._begin(said)
            return refused
        if (call := self._open.get(said.id)) is not None:  # else it has ended meanwhile
            call.stop()
        return None

    def _refused(self, asked: Asked) -> Unread | None:
        """Why a call is not begun. An id that is taken is not answered by itself: that would end the call that has it."""
        if asked.id in self._open:
            return Unread(None, InvalidRequest(f"the id {asked.id!r} is that of a call which has not ended"))
        if self._draining:
            return Unread(asked.id, NotReady("draining; ask again, on another connection"))
        if len(self._tasks) >= self._limits.socket_calls:
            return Unread(asked.id, Overloaded(f"{self._limits.socket_calls} calls are open on this WebSocket"))
        if self._unadmitted and self._unadmitted + len(asked.raw) > self._limits.body:
            return Unread(asked.id, Overloaded("the calls of this WebSocket that wait for a place are too large"))
        return None

    def _begin(self, asked: Asked) -> None:
        call = self._open[asked.id] = _Open(asked)
        self._unadmitted += len(asked.raw)
        call.task = self._loop.create_task(self._serve(asked.id, call))
        self._tasks.add(call.task)
        call.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._draining and not self._tasks:
            self._finished.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a call on a WebSocket ended without a word", exc_info=error)

    async def _serve(self, identity: Identity, call: _Open) -> None:
        """One call, and its last event."""
        call.begun = True
        try:
            if call.stopped:
                raise _Stopped
            await self._answer(call)
            last = call.events.end()
        except _Gone:
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._over or (task is not None and task.cancelling() > call.stopped):
                raise
            if call.stopped and task is not None:
                task.uncancel()
                last = call.events.cancelled()
            else:
                last = self._problem(call.events, ExecutorError("the call was cancelled by nobody who asked it"))
        except _Stopped:
            last = call.events.cancelled()
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            last = self._problem(call.events, error)
        finally:
            self._admitted(call)
            del self._open[identity]  # before the last event: who reads it may use the id again
        try:
            await self._write(call, last)
        except _Gone:
            return

    async def _answer(self, call: _Open) -> None:
        asked, options = call.asked, self._options
        assert asked is not None
        name = normalised(asked.endpoint)
        if name is None:
            raise UnknownEndpoint("Not Found")
        identity = await authenticate(options.auth, name, self._scope) if options.auth else self._scope.get("user")
        live = self._live.runner()
        runner = await (live if call.until is None else within(call.until, live))
        app = self._find().get(name)
        if app is None:
            raise UnknownEndpoint("Not Found")
        ticket = runner.admit(name, size=len(asked.raw))
        try:
            if call.until is not None and time.monotonic() >= call.until:
                raise DeadlineExceeded(f"the deadline of this call to {name} has passed")
            request = app.bodies.read(JSON, asked.raw)
            self._admitted(call)
            del asked
            context = Context(
                request.request_id or os.urandom(16).hex(),
                headers=self._headers,
                deadline=call.until,
                identity=identity,
            )
            made = Call(name, request.docs, request.parameters, context, (), request.target_executor)
            await (self._stream if app.endpoint.kind == "stream" else self._call)(runner, made, call)
        finally:
            ticket.close()

    async def _call(self, runner: Runner, made: Call, call: _Open) -> None:
        result = await runner.call(made)
        try:
            body = answer(result, dict(made.parameters), made.context.request_id, JSON)
        except UNWRITABLE as error:
            raise unwritable(made, error) from error
        await self._write(call, call.events.answer(body))

    async def _stream(self, runner: Runner, made: Call, call: _Open) -> None:
        async with aclosing(runner.stream(made)) as steps:
            async for docs in steps:
                codec = docs.codec
                try:
                    data = codec.dumps(codec.to_json(docs.typed)[0])
                except UNWRITABLE as error:
                    raise unwritable(made, error) from error
                await self._write(call, call.events.doc(data))
                if call.stopped:
                    raise _Stopped

    async def _write(self, call: _Open | None, text: str) -> None:
        """Send one event, when it is this call's turn.

        Raises:
            _Gone: nobody is there to read it.
        """
        async with self._writing:
            if self._over:
                raise _Gone
            if call is not None:
                call.sends = True
            try:
                await self._send({"type": "websocket.send", "text": text})
            except _GONE:
                self._over = self._lost = True
                self._finished.set()
                raise _Gone from None
            finally:
                if call is not None:
                    call.sends = False
        self._sent = now = self._loop.time()
        if call is None or Socket._speaking is not call:  # somebody else spoke since: the loop does turn
            Socket._speaking = call
            if call is not None:
                call.ran_since = now
        elif now - call.ran_since > _TURN:
            await asyncio.sleep(0)
            call.ran_since = self._loop.time()

    def _problem(self, events: Events, error: Exception) -> str:
        status, body, _ = problem(error, expose=self._options.expose_errors)
        return events.error(status, body, error.retry_after if isinstance(error, Unavailable) else None)

    def _admitted(self, call: _Open) -> None:
        """Its documents have been read, or never will be."""
        if call.asked is not None:
            self._unadmitted -= len(call.asked.raw)
            call.asked = None

    async def _keep_alive(self) -> None:
        """Say something whenever nothing has been said for a while; a reader that is slow needs no reminder."""
        idle = self._limits.stream_idle
        while True:
            await asyncio.sleep(self._sent + idle - self._loop.time())
            if self._loop.time() - self._sent >= idle:
                try:
                    await self._write(None, PING)
                except _Gone:
                    return

    def _leave(self) -> None:
        """Serving ends; from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            pass  # this loop is closed: nothing is open here

    def _drain(self) -> None:
        self._draining = True
        if not self._tasks:
            self._finished.set()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel some tasks and wait for their end, also where we are cancelled meanwhile: that is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: what a call ends with is told there
    if cancelled is not None:
        raise cancelled


__all__ = ["Lasting", "Socket"]
