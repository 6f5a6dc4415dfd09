"""The asking half of the framed protocol: a Runner whose work is done at the other end of a connection.

How to connect is given to it. Losing the connection fails what is open, once; nothing here connects again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from jina_asgi.concurrency.offload import beside
from jina_asgi.concurrency.timeouts import any_done
from jina_asgi.errors import DeadlineExceeded, NotReady, ProtocolError, UnknownEndpoint
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import agreed, endpoint_of, write
from jina_asgi.protocols.frames._layout import FRAME_LIMIT
from jina_asgi.protocols.frames._rules import Window
from jina_asgi.protocols.frames.calls import are_large, docs_of, read_result, write_call
from jina_asgi.protocols.frames.client_connection import Inbox, Link, Reply, Written
from jina_asgi.protocols.frames.connection import Sharing
from jina_asgi.types import EMPTY, Call, Docs, Endpoint, Result, Ticket, resolve

#: Makes a connection: takes a protocol factory, as `loop.create_unix_connection` does, and gives what that gives.
Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]]

#: How long after its deadline a stream that is closed waits for the far side to say so, in seconds.
CONFIRM_TIMEOUT = 1.0


class _Place:
    """A ticket that holds nothing: the far side gives places when a call arrives there."""

    def close(self) -> None:
        return


_PLACE = _Place()


class FrameClient:
    """A Runner at the other end of a connection that `connect` makes.

    The endpoints come from the other side, without classes, so that typed docs are dicts; `endpoints` gives the
    same ones with their classes, and lets them be known before the lifespan starts. `limit` bounds a frame in
    bytes; `grace` is how long leaving the lifespan waits for open calls, in seconds. `begun` tells of a request's
    number whether the other side had begun it when the connection was lost; without it, it may have. `sharing` makes
    what a connection needs to share memory with the other side.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        endpoints: Mapping[str, Endpoint] | None = None,
        limit: int = FRAME_LIMIT,
        hello_timeout: float = 10.0,
        grace: float = 30.0,
        begun: Callable[[int], bool] = lambda number: True,
        sharing: Callable[[], Sharing | None] = lambda: None,
    ) -> None:
        self._begun, self._sharing = begun, sharing
        self._connect, self._given, self._endpoints = connect, endpoints, endpoints
        self._limit, self._hello_timeout, self._grace = limit, hello_timeout, grace
        self._link: Link | None = None

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints of the other side.

        Raises:
            NotReady: never connected, and none were given.
        """
        if self._endpoints is None:
            raise NotReady("the endpoints of the other side are known once the lifespan has started")
        return self._endpoints

    @property
    def dropped(self) -> int:
        """Answers on this connection that came after their call was given up, or for no call at all."""
        return 0 if self._link is None else self._link.state.late + self._link.state.strays

    def admit(self, endpoint: str, *, size: int = 0, tenant: str = "", priority: int = 0) -> Ticket:
        self._open_link()
        return _PLACE

    async def call(self, call: Call, /) -> Result:
        link, endpoint = self._find(call)
        if not link.is_writable:
            await self._wait_writable(call)
        remaining = _remaining(call)
        written = await self._written(call) if are_large(call.docs) else write_call(call)
        reply = Reply(asyncio.get_running_loop())
        asked = link.ask(_layout.CALL, written, reply)
        del written  # it may be large, and is not needed any more
        timer = link.timer(asked, remaining)
        try:
            frame = await reply.future
        except asyncio.CancelledError:
            call.context.cancelled = True
            link.cancel(asked)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if frame.kind == _layout.ERROR:
            raise link.error_in(frame)
        try:
            return read_result(frame, endpoint)
        except ProtocolError as error:
            link.break_off(error)
            raise

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        link, endpoint = self._find(call)
        if not link.is_writable:
            await self._wait_writable(call)
        remaining = _remaining(call)
        inbox = Inbox(asyncio.get_running_loop())
        window = Window()
        credit: dict[str, Any] = {"items": window.items, "size": window.size}
        written = await self._written(call, **credit) if are_large(call.docs) else write_call(call, **credit)
        asked = link.ask(_layout.STREAM, written, inbox, window)
        del written
        timer = link.timer(asked, remaining)
        try:
            while True:
                frame = await inbox.next()
                if frame.kind == _layout.END:
                    return
                if frame.kind == _layout.ERROR:
                    raise link.error_in(frame)
                more = window.consumed(frame.size)
                if more is not None and not inbox.over:
                    link.send(_layout.CREDIT, asked.number, write(more))
                yield docs_of(frame, endpoint)
        finally:
            if timer is not None:
                timer.cancel()
            if link.cancel(asked):
                call.context.cancelled = True
                await _confirmed(inbox, call.context.deadline)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._link is not None:
            raise NotReady("this connection is open already")
        link = await self._open()
        self._link = link
        try:
            yield
        finally:
            try:
                await link.finish(self._grace)
            finally:
                self._link = None

    def stop_taking(self) -> None:
        """Refuse new calls from now on; leaving the lifespan does so too."""
        if self._link is not None:
            self._link.leaving = True

    @property
    def is_open(self) -> bool:
        """Whether calls are taken."""
        return self._link is not None and self._link.is_open

    @property
    def trouble(self) -> str:
        """Why the other side can answer nothing just now, as it says; nothing where it can."""
        return "not connected" if self._link is None else self._link.state.trouble

    @property
    def figures(self) -> Mapping[str, Any]:
        """The other side's, for `/-/status`, as of the last ping; none where it tells none."""
        return EMPTY if self._link is None else self._link.state.figures

    async def ping(self) -> None:
        """Return once the other side has answered, or the connection is lost."""
        if self._link is not None:
            await self._link.ping()

    async def leaves(self) -> None:
        """Wait until the other side takes no new calls, or there is no connection."""
        if self._link is not None:
            await self._link.goodbye.wait()

    async def lost(self) -> None:
        """Wait until there is no connection."""
        if self._link is not None:
            await self._link.closed.wait()

    def abort(self) -> None:
        """End the connection at once."""
        if self._link is not None:
            self._link.abort()

    def _find(self, call: Call) -> tuple[Link, Endpoint]:
        """Where a call goes, and which endpoint it asks."""
        link = self._open_link()
        endpoint = resolve(self.endpoints, call.endpoint)
        if endpoint is None:
            raise UnknownEndpoint(f"there is no endpoint {call.endpoint!r} and no '/default'")
        return link, endpoint

    async def _written(self, call: Call, **credit: int) -> Written:
        """A call of large docs as the head and docs of a frame, made beside the event loop.

        Raises:
            NotReady: the connection is gone meanwhile. DeadlineExceeded: the call's deadline has passed.
        """
        written = await beside(call.context.deadline, write_call, call, in_pieces=True, **credit)
        self._open_link()
        return written

    async def _wait_writable(self, call: Call) -> None:
        """Wait, until the call's deadline, for an other side that is slow to read."""
        link, deadline = self._open_link(), call.context.deadline
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await link.writable()
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the call could be sent") from error
        self._open_link()

    def _open_link(self) -> Link:
        link = self._link
        if link is None or not link.is_open:
            raise NotReady("not connected" if link is None else link.why_closed)
        return link

    async def _open(self) -> Link:
        """Connect and exchange hellos.

        Raises:
            NotReady: nobody is there, or nobody answers.
            ProtocolError: the other side speaks something else, or serves other endpoints than were given.
        """
        try:
            _, protocol = await self._connect(lambda: Link(self._limit, self._begun, self._sharing()))
        except OSError as error:
            raise NotReady(f"cannot connect to the executor: {error}") from error
        link = cast("Link", protocol)
        try:
            if not await any_done([link.greeted], self._hello_timeout):
                raise NotReady(f"no hello came within {self._hello_timeout} s of connecting")
            hello = await link.greeted
            self._endpoints = agreed(self._given, {e.name: e for e in map(endpoint_of, hello.endpoints)})
        except BaseException:
            link.abort()
            raise
        return link


def _remaining(call: Call) -> float | None:
    deadline = call.context.deadline
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if not remaining > 0:
        raise DeadlineExceeded("the deadline had passed before the call was sent")
    return remaining


async def _confirmed(inbox: Inbox, deadline: float | None) -> None:
    """Wait until the far side has closed the user's generator.

    Raises:
        DeadlineExceeded: it has not said so a second after the deadline.
    """
    if deadline is None:
        await inbox.ended()
        return
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + CONFIRM_TIMEOUT):
            await inbox.ended()
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed, and the executor has not closed the stream") from error
