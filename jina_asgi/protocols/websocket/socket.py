"""One JSON WebSocket with many concurrent calls, each in a task that the socket owns.

Each call has at most one event on its way, and calls take turns: so a slow reader pauses the generators, and no stream
blocks another. Each call ends with one event, "end" or "error"; the end of the socket ends all of them.

The lifecycle of one accepted WebSocket: it reads messages, and owns its calls' tasks, which end with it.

It does not know the messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, NamedTuple

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.concurrency.tasks import cancel_and_wait, mark_retrieved, start_task
from jina_asgi.errors import InvalidRequest, NotReady, Overloaded
from jina_asgi.errors._raised import loggable
from jina_asgi.protocols.http.bodies import BodiesByEndpoint
from jina_asgi.protocols.service import LONGEST_TURN, Service, last_write
from jina_asgi.protocols.websocket._messages import (
    PING,
    CallMessage,
    Cancelled,
    Events,
    Identity,
    PackedEvents,
    Unread,
    read,
)
from jina_asgi.protocols.websocket.call import Gone, OpenCall, SocketContext

logger = logging.getLogger("jina_asgi")

#: Bytes that are read of one socket before others run, and the additional bytes that each message counts: 16 small ones.
_TURN, _MESSAGE = 2**12, 2**8
_PIECE = 2**18  # letters of a large text that are encoded in one call


def is_gone(error: Exception) -> bool:
    """Whether an error of `send` means that the client has left.

    It may be a server's subclass of OSError, in gunicorn a RuntimeError too; Starlette's own error; or uvloop's error for
    a closed connection, which gunicorn's `asgi` worker does not convert.
    """
    if isinstance(error, OSError | WebSocketDisconnect):
        return True
    return isinstance(error, RuntimeError) and str(error).endswith("the handler is closed")


class Closing(NamedTuple):
    """The code and reason with which we close a socket."""

    code: int
    reason: str


class Inbound:
    """The messages of one socket. If they arrive fast, `receive` never waits, so this yields to the loop.

    Args:
        receive: ASGI's.
        limit: the most bytes of a message.
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._heard = 0  # bytes since others ran

    async def next(self) -> tuple[bytes, bool] | Closing | None:
        """The next message and whether it is text; a reason to close if it is too large; None if the client left."""
        if self._heard >= _TURN:
            self._heard = 0
            await asyncio.sleep(0)
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text: str | None = message.get("text")
        if text is None:
            raw: bytes = message["bytes"]
        else:
            raw = _encoded(text) if len(text) < LARGE else await parse_in_thread(None, _encoded, text)
        if len(raw) > self._limit:
            return Closing(1009, f"expected at most {self._limit} bytes; `limits` of JinaASGI raises this")
        self._heard += _MESSAGE + len(raw)
        return raw, text is not None


def _encoded(text: str) -> bytes:
    if len(text) <= _PIECE:
        return text.encode("utf-8", "surrogatepass")
    pieces = [text[at : at + _PIECE].encode("utf-8", "surrogatepass") for at in range(0, len(text), _PIECE)]
    return b"".join(pieces)  # which lets other threads run


class SocketLife:
    """The lifecycle of one socket.

    Args:
        send: ASGI's.
        service: its draining ends the socket.

    Attributes:
        tasks: the open calls.
        closing: set when the socket should close after its calls; no new call begins then.
        over: nothing more is sent.
    """

    def __init__(self, send: Send, service: Service) -> None:
        self._send, self._service = send, service
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._lost = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.closing: Closing | None = None
        self.over = False

    async def run(self, reading: Coroutine[Any, Any, Closing | None], *beside: Coroutine[Any, Any, None]) -> None:
        """Run until the client leaves or violates the protocol, or the calls have ended after `closing` was set.

        Args:
            reading: reads messages and starts calls; returns why to close, or None if the client did.
            beside: another coroutine to run meanwhile.
        """
        read, over = start_task(reading, mark_retrieved), start_task(self._finished.wait(), mark_retrieved)
        others = [start_task(work, mark_retrieved) for work in beside]
        stop_following = self._service.on_drain(self._leave)
        if self._service.is_draining:
            self._drain()
        try:
            await asyncio.wait([read, over], return_when=asyncio.FIRST_COMPLETED)
            closing = read.result() if read.done() else self.closing
        finally:
            self.over = True
            stop_following()
            await cancel_and_wait([read, over, *others, *self.tasks])
        if closing is not None and not self._lost:
            try:
                await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
            except Exception as error:
                if not is_gone(error):
                    raise
                logger.debug("a WebSocket's client left before it was closed")

    def begin(self, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a call, which sends its own last event."""
        return start_task(call, self._done, kept=self.tasks)

    async def send(self, message: Message) -> None:
        """Send a message; one at a time.

        Raises:
            Gone: the client has left.
        """
        if self.over:
            raise Gone
        try:
            await self._send(message)
        except Exception as error:
            if not is_gone(error):
                raise
            self.over = self._lost = True
            self._finished.set()
            raise Gone from None

    def finish(self, closing: Closing) -> None:
        """Close when all calls have ended, for this reason or an earlier one."""
        self.closing = self.closing or closing
        if not self.tasks:
            self._finished.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        if self.closing is not None and not self.tasks:
            self._finished.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a call on a WebSocket ended without an event", exc_info=loggable(error))

    def _leave(self) -> None:
        """Called from any thread when serving ends."""
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            pass  # this loop is closed: nothing is open here

    def _drain(self) -> None:
        self.finish(Closing(1001, "draining"))


class Socket:
    """One accepted WebSocket; `run` it to its end.

    Args:
        scope, receive, send: ASGI's.
        service: answers the calls.
        bodies: the readers of their bodies.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, service: Service, bodies: BodiesByEndpoint) -> None:
        self._inbound, self._limits = Inbound(receive, service.limits.body), service.limits
        self._life = SocketLife(send, service)
        self._context = SocketContext(service, Headers(raw=scope["headers"]), scope.get("user"), bodies)
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.Lock()
        self._open: dict[Identity, tuple[OpenCall, asyncio.Task[None]]] = {}
        self._sent = self._loop.time()

    async def run(self) -> None:
        """Answer until the client leaves or violates the protocol, or serving ends; all calls have ended then."""
        await self._life.run(self._read(), self._keep_alive())

    async def _read(self) -> Closing | None:
        """Start and cancel calls as the client requests; return why to close, or None if the client did."""
        while True:
            message = await self._inbound.next()
            if message is None or isinstance(message, Closing):
                return message
            raw, is_text = message
            packed = not is_text
            values = self._limits.values
            if len(raw) < LARGE:
                said = read(raw, values, packed=packed)
            else:
                said = await parse_in_thread(None, read, raw, values, packed=packed)
            if packed and isinstance(said, Unread) and said.id is None:
                return Closing(1003, "expected JSON as text, or a msgpack map; got a binary message that is none")
            unread = self._take(said)
            if unread is not None:
                identity = None if unread.id in self._open else unread.id
                try:
                    events = (PackedEvents if packed else Events)(identity)
                    await self._write(None, self._context.error_event(events, unread.error))
                except Gone:
                    return None

    def _take(self, said: CallMessage | Cancelled | Unread) -> Unread | None:
        """Do what a message says; return the error if it is refused."""
        if isinstance(said, Unread):
            return said
        if isinstance(said, CallMessage):
            refused = self._refused(said)
            if refused is None:
                self._begin(said)
            return refused
        if said.id in self._open:  # else it has ended
            call, task = self._open[said.id]
            call.stop(task)
        return None

    def _refused(self, asked: CallMessage) -> Unread | None:
        """Why a call is refused. The answer to a duplicate id does not have that id, as it would end the open call."""
        if asked.id in self._open:
            return Unread(None, InvalidRequest(f"the id {asked.id!r} belongs to an open call"))
        if self._life.closing is not None:
            return Unread(asked.id, NotReady("draining; try again on another connection"))
        if len(self._life.tasks) >= self._limits.socket_calls:
            return Unread(asked.id, Overloaded(f"{self._limits.socket_calls} calls are open on this WebSocket"))
        unread = sum(call.unread for call, _ in self._open.values()) if self._open else 0
        if unread and unread + len(asked.raw) > self._limits.body:
            return Unread(asked.id, Overloaded("the calls of this WebSocket that wait for a place are too large"))
        return None

    def _begin(self, asked: CallMessage) -> None:
        call = OpenCall(asked, self._context, self._write)
        self._open[asked.id] = call, self._life.begin(self._serve(asked.id, call))

    async def _serve(self, identity: Identity, call: OpenCall) -> None:
        """Run one call, and send its last event."""
        try:
            try:
                last = await call.outcome()
            finally:
                del self._open[identity]  # before the last event: its reader may use the id again
            await self._write(call, *last)
        except Gone:
            return

    async def _write(self, call: OpenCall | None, *said: str | bytes) -> None:
        """Send an event (or the last two of a call) when it is this call's turn.

        Raises:
            Gone: the client has left.
        """
        async with self._writing:
            if self._life.over:
                raise Gone
            if call is not None:
                call.sends = True
            try:
                for event in said:
                    kind = "text" if isinstance(event, str) else "bytes"
                    await self._life.send({"type": "websocket.send", kind: event})
            finally:
                if call is not None:
                    call.sends = False
        self._sent = now = self._loop.time()
        if last_write.writer is not call:  # another call has sent an event since: the loop does turn
            last_write.writer, last_write.since = call, now
        elif now - last_write.since > LONGEST_TURN:
            await asyncio.sleep(0)
            last_write.since = self._loop.time()

    async def _keep_alive(self) -> None:
        """Send a ping after some time of silence; not while a reader is slow."""
        idle = self._limits.stream_idle
        while True:
            await asyncio.sleep(self._sent + idle - self._loop.time())
            if self._loop.time() - self._sent >= idle:
                try:
                    await self._write(None, PING)
                except Gone:
                    return
