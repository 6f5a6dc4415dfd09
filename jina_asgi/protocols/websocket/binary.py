"""Jina's binary WebSocket: each message is a DataRequestProto, answered by another one, in any order.

An error is part of an answer. A few requests are open at once; one more is read, so that a client that leaves is
noticed, and no further one: the connection slows down a client that sends too fast.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from jina_asgi.concurrency.tasks import cancel_requests
from jina_asgi.errors import ExecutorError, InvalidRequest, NotReady, Overloaded
from jina_asgi.protocols.protobuf.request_handler import EncodedAnswer, RequestHandler
from jina_asgi.protocols.service import CallerInfo, Service
from jina_asgi.protocols.websocket.call import Gone
from jina_asgi.protocols.websocket.socket import Closing, Inbound, SocketLife, is_gone

logger = logging.getLogger("jina_asgi")

_END = b"\x00"  # not the start of a DataRequestProto
_HEARD = 0.25  # seconds: Jina's Client loses an error if its socket closes before it has raised it; it then disconnects
_BYTES = 1 << 26  # of requests that are open at once, on one socket
_TEXT = Closing(1003, "expected a DataRequestProto as a binary message, got text")


async def answer_requests(scope: Scope, receive: Receive, send: Send, service: Service) -> None:
    """Accept a handshake, without selecting a subprotocol, as Jina does, and answer until the socket closes."""
    await send({"type": "websocket.accept"})
    caller = CallerInfo(Headers(raw=scope["headers"]), user=scope.get("user"), method="websocket")
    await BinarySocket(receive, send, RequestHandler(service), caller).run()


async def send_readiness(receive: Receive, send: Send, service: Service) -> None:
    """Accept a handshake, answer one message with a StatusProto, and close."""
    await send({"type": "websocket.accept"})
    message = await receive()
    if message["type"] != "websocket.receive":
        return
    closing = Closing(1000, "") if message.get("bytes") is not None else _TEXT
    try:
        if closing is not _TEXT:
            await send({"type": "websocket.send", "bytes": RequestHandler(service).readiness()})
        await send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
    except Exception as error:
        if not is_gone(error):
            raise
        logger.debug("a client left before it was answered whether this is ready")


class BinarySocket:
    """One accepted WebSocket; `run` it to its end.

    Args:
        receive, send: ASGI's.
        handler: answers the requests.
        caller: the sender of the requests.
    """

    def __init__(self, receive: Receive, send: Send, handler: RequestHandler, caller: CallerInfo) -> None:
        self._handler, self._caller, self._limits = handler, caller, handler.service.limits
        self._inbound = Inbound(receive, self._limits.body)
        self._life = SocketLife(send, handler.service)
        self._open = self._refused = self._bytes = 0
        self._is_last = False
        self._ended = asyncio.Event()  # never stays set: it wakes those who wait for another request's end
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Answer until the client leaves, violates the protocol or has its answers, or serving ends."""
        await self._life.run(self._read())

    async def _read(self) -> Closing | None:
        """Start requests as they arrive; return why to close, or None if the client did."""
        while True:
            message = await self._inbound.next()
            if message is None or isinstance(message, Closing):
                return message
            raw, is_text = message
            if is_text:
                return _TEXT
            if raw == _END:
                self._is_last = True
                self._life.finish(Closing(1000, ""))
                continue
            while self._open and (self._open >= self._limits.socket_calls or self._bytes + len(raw) > _BYTES):
                await self._ended.wait()
            self._open += 1
            self._bytes += len(raw)
            self._life.begin(self._serve(raw, self._unwanted()))

    def _unwanted(self) -> Exception | None:
        """Why a request that arrives now is not run; else None."""
        if self._is_last:
            return InvalidRequest("expected no request after the end of input")
        if self._life.closing is not None:
            return NotReady("draining; try again on another connection")
        return None

    async def _serve(self, raw: bytes, unwanted: Exception | None) -> None:
        try:
            answered = await self._answered(raw) if unwanted is None else await self._handler.refused(raw, unwanted)
            try:
                async with self._writing:
                    await self._life.send({"type": "websocket.send", "bytes": answered.raw})
            finally:
                if answered.ticket is not None:
                    answered.ticket.close()
        except Gone:
            return
        finally:
            self._open -= 1
            self._bytes -= len(raw)
            self._ended.set()
            self._ended.clear()
        if answered.failed:
            await asyncio.sleep(_HEARD)

    async def _answered(self, raw: bytes) -> EncodedAnswer:
        """Answer a request. If the queue is full, it waits while other requests of its socket are being answered."""
        try:
            while True:
                try:
                    return await self._handler.answer(raw, self._caller)
                except Overloaded:
                    if self._refused + 1 >= self._open:
                        raise
                self._refused += 1
                try:
                    await self._ended.wait()
                finally:
                    self._refused -= 1
        except asyncio.CancelledError:
            if cancel_requests():
                raise
            return await self._handler.refused(raw, ExecutorError("the call was cancelled, and not by its client"))
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            return await self._handler.refused(raw, error)
