"""The pipe pair: client and server of the framed protocol over an in-memory connection, around any Runner.

Bytes are really transferred, in pieces, by turns of the event loop, with the limits that make a writer wait: what
works through a pipe pair is ready for another process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from jina_asgi.protocols.frames._heads import describe, endpoint_of
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.types import Endpoint, Runner

#: The most bytes that one turn of the event loop delivers.
PIECE = 64 << 10


class PipeTransport(asyncio.Transport):
    """One end of an in-memory connection: bytes written here reach the protocol at the other end."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.other: PipeTransport
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        # Callbacks run in a context of their own: a caller's context variables do not cross a socket.
        self._context = contextvars.copy_context()
        self._buffer: deque[memoryview] = deque()
        self._size = 0
        self._high, self._low = 64 << 10, 16 << 10
        self._is_scheduled = self._is_writing_paused = self._is_reading_paused = False
        self._is_closing = self._is_lost = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._is_closing or not len(data):
            return
        self._buffer.append(memoryview(bytes(data)))
        self._size += len(data)
        if self._size > self._high and not self._is_writing_paused:
            self._is_writing_paused = True
            self._protocol.pause_writing()
        self._schedule()

    def close(self) -> None:
        """Delivers what was written, then closes the connection on both sides."""
        if not self._is_closing:
            self._is_closing = True
            self._schedule()

    def abort(self) -> None:
        """Closes the connection on both sides at once; undelivered bytes are lost."""
        self._is_closing = True
        self._buffer.clear()
        self._size = 0
        self._schedule()

    def is_closing(self) -> bool:
        return self._is_closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = (64 << 10) if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return self._size

    def pause_reading(self) -> None:
        self._is_reading_paused = True

    def resume_reading(self) -> None:
        self._is_reading_paused = False
        self.other._schedule()

    def start(self) -> None:
        self._context.run(self._protocol.connection_made, self)

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_lost:
            self._is_scheduled = True
            self._loop.call_soon(self._deliver, context=self._context)

    def _deliver(self) -> None:
        """Delivers one piece to the other end, and schedules itself again while there is more."""
        self._is_scheduled = False
        if self._is_lost or (self._buffer and self.other._is_reading_paused and not self.other._is_closing):
            return
        if self._buffer:
            first = self._buffer.popleft()
            if len(first) > PIECE:
                self._buffer.appendleft(first[PIECE:])
                first = first[:PIECE]
            self._size -= len(first)
            if not self.other._is_closing:
                self.other._protocol.data_received(bytes(first))
            if self._is_writing_paused and self._size <= self._low:
                self._is_writing_paused = False
                self._protocol.resume_writing()
        if self._buffer:
            self._schedule()
        elif self._is_closing:
            self._lose()
            self._loop.call_soon(self.other._lose, context=self.other._context)

    def _lose(self) -> None:
        self._is_closing = True
        if not self._is_lost:
            self._is_lost = True
            self._protocol.connection_lost(None)


def pipe(left: asyncio.Protocol, right: asyncio.Protocol) -> tuple[PipeTransport, PipeTransport]:
    """Connects two protocols in memory."""
    ends = PipeTransport(left), PipeTransport(right)
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end in ends:
        end.start()
    return ends


class PipePair(FrameClient):
    """Calls `runner` through frames in memory. Its lifespan is the runner's, with a connection inside."""

    def __init__(self, runner: Runner, *, endpoints: Mapping[str, Endpoint] | None = None) -> None:
        # The runner's own grace has passed when the connection ends: only frames in transit are waited for.
        super().__init__(self._connect_pipe, endpoints=endpoints, grace=1.0)
        self._runner = runner
        self._server: FrameServer | None = None

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        if self._endpoints is None:
            return {name: endpoint_of(describe(endpoint)) for name, endpoint in self._runner.endpoints.items()}
        return self._endpoints

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as connection:
            connection.push_async_callback(self._server_ended)
            # The runner ends first, so that its answers to the calls that it stops still cross.
            async with self._runner.lifespan():
                await connection.enter_async_context(super().lifespan())
                try:
                    yield
                finally:
                    self.stop_taking()

    async def _server_ended(self) -> None:
        if self._server is not None:
            await self._server.wait_closed()

    async def _connect_pipe(
        self, factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        client = factory()
        self._server = FrameServer(self._runner)
        transport, _ = pipe(client, self._server)
        return transport, client


def pipe_pair(runner: Runner, *, endpoints: Mapping[str, Endpoint] | None = None) -> Runner:
    """Wraps `runner` in a pipe pair: a Runner that calls it through frames in memory.

    Its endpoints are as they cross the wire: without classes, so that typed docs are dicts, unless `endpoints` gives
    the same ones with their classes.
    """
    return PipePair(runner, endpoints=endpoints)
