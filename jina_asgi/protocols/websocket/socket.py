"""One JSON WebSocket with many concurrent calls, each in a task that the socket owns.

Each call has at most one event on its way, and calls take turns: so a slow reader pauses the generators, and no stream
blocks another. Each call ends with one event, "end" or "error"; the end of the socket ends all of them.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.errors import InvalidRequest, NotReady, Overloaded
from jina_asgi.protocols.last_write import LONGEST_TURN, last_write
from jina_asgi.protocols.service import Service
from jina_asgi.protocols.websocket._messages import PING, CallMessage, Cancelled, Events, Identity, Unread, read
from jina_asgi.protocols.websocket._packed import PackedEvents
from jina_asgi.protocols.websocket.call import BodiesByEndpoint, Gone, OpenCall, SocketContext
from jina_asgi.protocols.websocket.connection import Closing, Inbound, SocketLife


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
            said = (
                read(raw, packed=packed) if len(raw) < LARGE else await parse_in_thread(None, read, raw, packed=packed)
            )
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


__all__ = ["Socket"]
