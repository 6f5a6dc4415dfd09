"""The lifecycle of one accepted WebSocket: it reads messages, and owns its calls' tasks, which end with it.

It does not know the messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, NamedTuple

from starlette.types import Message, Receive, Send
from starlette.websockets import WebSocketDisconnect

from jina_asgi.concurrency.tasks import cancel_and_wait, mark_retrieved, start_task
from jina_asgi.errors._raised import loggable
from jina_asgi.protocols.service import Service
from jina_asgi.protocols.websocket.call import Gone

logger = logging.getLogger("jina_asgi")

#: Bytes that are read of one socket before others run, and the additional bytes that each message counts: 16 small ones.
_TURN, _MESSAGE = 2**12, 2**8


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
        raw: bytes = message["bytes"] if text is None else text.encode("utf-8", "surrogatepass")
        if len(raw) > self._limit:
            return Closing(1009, f"expected at most {self._limit} bytes; `limits` of JinaASGI raises this")
        self._heard += _MESSAGE + len(raw)
        return raw, text is not None


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
