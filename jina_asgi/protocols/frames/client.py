"""The client of the framed protocol: a Runner whose calls are executed at the other end of a connection.

The caller supplies the function that connects. When the connection is lost every open call fails, once; nothing
here reconnects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import any_done
from jina_asgi.errors import DeadlineExceeded, NotReady, ProtocolError, UnknownEndpoint
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import endpoint_of, match_endpoints, write
from jina_asgi.protocols.frames._layout import FRAME_LIMIT
from jina_asgi.protocols.frames._rules import Window
from jina_asgi.protocols.frames.calls import are_large, docs_of, read_result, write_call
from jina_asgi.protocols.frames.client_connection import CallAnswer, EncodedCall, FrameClientConnection, StreamFrames
from jina_asgi.protocols.frames.connection import MemorySharing
from jina_asgi.types import EMPTY, Call, Docs, Endpoint, Result, Ticket, resolve

#: Opens a connection: takes a protocol factory and returns (transport, protocol), as `loop.create_unix_connection`
#: does.
Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]]

#: How long past its deadline a stream that is being closed waits for the server's confirmation, in seconds.
CONFIRM_TIMEOUT = 1.0


class FrameClient:
    """A Runner at the other end of a connection that `connect` opens.

    The endpoints come from the server, without classes, so that typed docs are dicts; `endpoints` gives the same ones
    with their classes, which also makes them known before the lifespan starts. `limit` bounds a frame in bytes; `grace`
    is how long leaving the lifespan waits for open calls, in seconds. When the connection is lost,
    `has_begun(request number)` says whether the server had begun that request; by default it may have. `sharing` makes
    the shared memory of a connection.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        limit: int = FRAME_LIMIT,
        hello_timeout: float = 10.0,
        grace: float = 30.0,
        has_begun: Callable[[int], bool] = lambda number: True,
        sharing: Callable[[], MemorySharing | None] = lambda: None,
    ) -> None:
        self._has_begun, self._sharing = has_begun, sharing
        self._connect, self._expected, self._endpoints = connect, endpoints, endpoints
        self._limit, self._hello_timeout, self._grace = limit, hello_timeout, grace
        self._connection: FrameClientConnection | None = None

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints of the server.

        Raises:
            NotReady: never connected, and none were given.
        """
        if self._endpoints is None:
            raise NotReady("the endpoints of the other side are known once the lifespan has started")
        return self._endpoints

    @property
    def dropped(self) -> int:
        """How many answers arrived after their call was cancelled, or for no call at all."""
        return 0 if self._connection is None else self._connection.state.late + self._connection.state.strays

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        self._require_connection()
        return Ticket()  # the server admits a call when it arrives there

    async def call(self, call: Call, /) -> Result:
        connection, endpoint = self._route(call)
        if not connection.is_writable:
            await self._wait_writable(call)
        remaining = _remaining(call)
        written = await self._encode_in_thread(call) if are_large(call.docs) else write_call(call)
        reply = CallAnswer(asyncio.get_running_loop())
        request = connection.send_request(_layout.CALL, written, reply)
        del written  # it may be large, and is not needed any more
        timer = connection.timer(request, remaining)
        try:
            frame = await reply.future
        except asyncio.CancelledError:
            call.context.cancelled = True
            connection.cancel(request)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if frame.kind == _layout.ERROR:
            raise connection.error_in(frame)
        try:
            return read_result(frame, endpoint)
        except ProtocolError as error:
            connection.break_off(error)
            raise

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        connection, endpoint = self._route(call)
        if not connection.is_writable:
            await self._wait_writable(call)
        remaining = _remaining(call)
        inbox = StreamFrames(asyncio.get_running_loop())
        window = Window()
        credit: dict[str, Any] = {"items": window.items, "size": window.size}
        written = await self._encode_in_thread(call, **credit) if are_large(call.docs) else write_call(call, **credit)
        request = connection.send_request(_layout.STREAM, written, inbox, window)
        del written
        timer = connection.timer(request, remaining)
        try:
            while True:
                frame = await inbox.next()
                if frame.kind == _layout.END:
                    return
                if frame.kind == _layout.ERROR:
                    raise connection.error_in(frame)
                more = window.consumed(frame.size)
                if more is not None and not inbox.over:
                    connection.send(_layout.CREDIT, request.number, write(more))
                yield docs_of(frame, endpoint)
        finally:
            if timer is not None:
                timer.cancel()
            if connection.cancel(request):
                call.context.cancelled = True
                await _wait_until_closed(inbox, call.context.deadline)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._connection is not None:
            raise NotReady("this connection is open already")
        connection = await self._connect_and_greet()
        self._connection = connection
        try:
            yield
        finally:
            try:
                await connection.finish(self._grace)
            finally:
                self._connection = None

    def stop_taking(self) -> None:
        """Refuses new calls from now on; leaving the lifespan does so too."""
        if self._connection is not None:
            self._connection.leaving = True

    @property
    def is_open(self) -> bool:
        """Whether new calls are accepted."""
        return self._connection is not None and self._connection.is_open

    @property
    def unhealthy_reason(self) -> str:
        """Why the server cannot answer calls at the moment, as it last reported; empty when it can."""
        return "not connected" if self._connection is None else self._connection.state.unhealthy_reason

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The server's metrics for `/-/status`, as of the last ping; empty if it reports none."""
        return EMPTY if self._connection is None else self._connection.state.metrics

    async def ping(self) -> None:
        """Returns once the server has answered a ping, or the connection is lost."""
        if self._connection is not None:
            await self._connection.ping()

    async def leaves(self) -> None:
        """Waits until the server takes no new calls, or the connection is closed."""
        if self._connection is not None:
            await self._connection.goodbye.wait()

    async def lost(self) -> None:
        """Waits until the connection is closed."""
        if self._connection is not None:
            await self._connection.closed.wait()

    def abort(self) -> None:
        """Closes the connection at once, without waiting for open calls."""
        if self._connection is not None:
            self._connection.abort()

    def _route(self, call: Call) -> tuple[FrameClientConnection, Endpoint]:
        """The connection and the endpoint for a call."""
        connection = self._require_connection()
        endpoint = resolve(self.endpoints, call.endpoint)
        if endpoint is None:
            raise UnknownEndpoint(f"there is no endpoint {call.endpoint!r} and no '/default'")
        return connection, endpoint

    async def _encode_in_thread(self, call: Call, **credit: int) -> EncodedCall:
        """Encodes a call with large docs in a thread.

        Raises:
            NotReady: the connection was closed meanwhile. DeadlineExceeded: the call's deadline has passed.
        """
        written = await parse_in_thread(call.context.deadline, write_call, call, in_pieces=True, **credit)
        self._require_connection()
        return written

    async def _wait_writable(self, call: Call) -> None:
        """Waits, until the call's deadline, for a server that is slow to read."""
        connection, deadline = self._require_connection(), call.context.deadline
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await connection.writable()
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the call could be sent") from error
        self._require_connection()

    def _require_connection(self) -> FrameClientConnection:
        connection = self._connection
        if connection is None or not connection.is_open:
            raise NotReady("not connected" if connection is None else connection.why_closed)
        return connection

    async def _connect_and_greet(self) -> FrameClientConnection:
        """Connects and exchanges hellos.

        Raises:
            NotReady: nothing listens there, or no hello came in time.
            ProtocolError: the peer speaks another protocol, or its endpoints differ from the expected ones.
        """
        try:
            _, protocol = await self._connect(
                lambda: FrameClientConnection(self._limit, self._has_begun, self._sharing())
            )
        except OSError as error:
            raise NotReady(f"cannot connect to the executor: {error}") from error
        connection = cast("FrameClientConnection", protocol)
        try:
            if not await any_done([connection.greeted], self._hello_timeout):
                raise NotReady(f"no hello came within {self._hello_timeout} s of connecting")
            hello = await connection.greeted
            self._endpoints = match_endpoints(self._expected, {e.name: e for e in map(endpoint_of, hello.endpoints)})
        except BaseException:
            connection.abort()
            raise
        return connection


def _remaining(call: Call) -> float | None:
    deadline = call.context.deadline
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if not remaining > 0:
        raise DeadlineExceeded("the deadline had passed before the call was sent")
    return remaining


async def _wait_until_closed(inbox: StreamFrames, deadline: float | None) -> None:
    """Waits until the server confirms that the user's generator is closed.

    Raises:
        DeadlineExceeded: no confirmation came within a second after the deadline.
    """
    if deadline is None:
        await inbox.ended()
        return
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + CONFIRM_TIMEOUT):
            await inbox.ended()
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed, and the executor has not closed the stream") from error
