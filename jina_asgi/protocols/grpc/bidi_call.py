"""Answers a stream of requests by a stream of answers, in any order or in that of the requests, within limits of number and
bytes.

A request that is refused waits while others of its stream are being answered, which slows the client down. Without
others it ends the stream, after the answers before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Any

import grpc

from jina_asgi.concurrency.tasks import cancel_and_wait, cancel_requests, mark_retrieved, start_task
from jina_asgi.errors import ExecutorError, NotReady, Overloaded
from jina_asgi.protocols.protobuf.request_handler import EncodedAnswer, RequestHandler
from jina_asgi.protocols.service import CallerInfo

_BYTES = 1 << 26  # of requests and answers that are open at once, in one stream


class Conversation:
    """The open requests of one stream.

    Args:
        context: that of the RPC.
        handler: answers the requests.
        caller: the sender of the requests.
        ahead: the number of open requests.
        in_order: whether answers keep the order of their requests.
    """

    def __init__(
        self, context: Any, handler: RequestHandler, caller: CallerInfo, *, ahead: int, in_order: bool
    ) -> None:
        self._context, self._handler, self._caller = context, handler, caller
        self._ahead, self._in_order = ahead, in_order
        self._open: deque[asyncio.Task[None]] = deque()
        self._unanswered: set[asyncio.Task[None]] = set()
        self._bytes = self._refused = 0
        self._changed = asyncio.Event()
        self._freed = asyncio.Event()  # never stays set: it wakes those who wait for another request's place
        self._gap = False  # an answer is missing, so later ones are not in order
        self._writing = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._ending: Exception | None = None

    async def run(self) -> None:
        """Answer until the client ends the stream.

        Raises:
            The refusal that ended it before: `problems.REFUSALS`.
        """
        self._reader = start_task(self._read(), mark_retrieved)
        try:
            await asyncio.wait([self._reader])
            if not self._reader.cancelled():
                self._reader.result()
            while self._open:
                await asyncio.wait([self._open[0]])
        finally:
            await self._stop()
        if self._ending is not None:
            raise self._ending

    def end(self, why: Exception) -> None:
        """Stop reading; the stream ends when its open requests have been answered."""
        if self._ending is None:
            self._ending = why
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        while self._ending is None:
            while len(self._open) >= self._ahead or self._bytes >= _BYTES:
                self._changed.clear()
                await self._changed.wait()
            raw = await self._context.read()
            if raw is grpc.aio.EOF:
                return
            self._bytes += len(raw)
            before = self._open[-1] if self._in_order and self._open else None
            task = start_task(self._answer(raw, before), partial(self._ended, len(raw)))
            self._open.append(task)
            self._unanswered.add(task)

    async def _answer(self, raw: bytes, before: asyncio.Task[None] | None) -> None:
        try:
            answered = await self._answered(raw)
            try:
                if before is not None and not before.done():
                    self._leave(answered)  # the request before it may wait for its place
                    await asyncio.wait([before])
                async with self._writing:
                    if not self._gap:
                        await self._context.write(answered.raw)
            finally:
                self._leave(answered)
        except Exception as error:  # noqa: BLE001  # it ends the stream, once what is open has ended
            self._gap = self._in_order
            self.end(error)
        except asyncio.CancelledError:
            if cancel_requests():
                raise
            self._gap = self._in_order
            self.end(ExecutorError("the call was cancelled, and not by its client"))

    async def _answered(self, raw: bytes) -> EncodedAnswer:
        while True:
            try:
                return await self._handler.answer(raw, self._caller)
            except Overloaded:
                self._refused += 1
                try:
                    if self._refused == len(self._unanswered):
                        raise
                    await self._freed.wait()
                finally:
                    self._refused -= 1

    def _leave(self, answered: EncodedAnswer) -> None:
        """Free a request's place for the next request that waits."""
        if answered.ticket is not None:
            answered.ticket.close()
        self._free(asyncio.current_task())

    def _ended(self, size: int, task: asyncio.Task[None]) -> None:
        self._bytes -= size
        self._open.remove(task)
        mark_retrieved(task)
        self._changed.set()
        self._free(task)

    def _free(self, task: asyncio.Task[Any] | None) -> None:
        if task in self._unanswered:
            self._unanswered.discard(task)
            self._freed.set()
            self._freed.clear()

    async def _stop(self) -> None:
        await cancel_and_wait([*self._open, *([self._reader] if self._reader is not None else [])])


def draining() -> NotReady:
    """The error that ends a stream whose server stops."""
    return NotReady("draining; try again later")
