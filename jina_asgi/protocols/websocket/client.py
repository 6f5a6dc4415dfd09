"""One WebSocket to a server, and the calls that are open on it. What its messages mean is up to a subclass of Link.

Keeps sockets open for later calls: calls with the same headers share a few, and a stream has one of its own.

Headers are sent in the handshake, so calls with other headers have other sockets.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from jina_asgi.concurrency.offload import LARGE, parse_if
from jina_asgi.concurrency.tasks import cancel_and_wait, log_failure, start_task, wait_until_done
from jina_asgi.errors import JinaASGIError, ProtocolError, ReplicaDied, TooLarge

_AHEAD = 16  # events of a stream that may wait for its reader
_TOO_BIG = 1009
_MALFORMED = 1007


class WireClosed(Exception):
    """The connection is closed.

    Attributes:
        code: WebSocket's close code; 1006 if there was none.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code


class Wire(ABC):
    """One open connection. `send` and `receive` raise WireClosed once it is closed."""

    @abstractmethod
    async def send(self, message: str | bytes) -> None: ...

    @abstractmethod
    async def receive(self) -> str | bytes: ...

    @abstractmethod
    async def close(self) -> None: ...


#: Opens a connection to a URL with these headers; raises NotReady, or the error that the server reports.
Dial = Callable[[str, Mapping[str, str]], Awaitable[Wire]]


def _closing_error(name: str, error: WireClosed) -> JinaASGIError:
    """The error of the calls on a connection that closed."""
    if error.code == _TOO_BIG:
        return TooLarge(f"{name} closed the WebSocket: {error}")
    if error.code == _MALFORMED:
        return ProtocolError(f"{name}: {error}")
    return ReplicaDied(f"the WebSocket to {name} closed ({error}); the call may have taken effect")


class Inbox:
    """The events of one call that have arrived and were not read yet."""

    __slots__ = ("_arrived", "_error", "_events", "_room", "dropped")

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._error: JinaASGIError | None = None
        self.dropped = False

    async def put(self, event: Any) -> None:
        while len(self._events) >= _AHEAD and not self.dropped:
            self._room.clear()
            await self._room.wait()
        self._events.append(event)
        self._arrived.set()

    def fail(self, error: JinaASGIError) -> None:
        self._error = error
        self._arrived.set()

    def drop(self) -> None:
        """Discards the events; no more are read."""
        self.dropped = True
        self._events.clear()
        self._room.set()

    async def get(self) -> Any:
        while not self._events:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._events.popleft()


class Link(ABC):
    """One connection and the calls on it.

    A slow reader of a stream delays everything behind it, so a stream has a link of its own: `streams` is then True.

    Args:
        wire: the connection.
        name: the server, for messages.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire, self._name = wire, name
        self._open: dict[Any, Inbox] = {}
        self._ended: JinaASGIError | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._reader = start_task(self._read(), self._reader_ended)
        self.streams = False

    @property
    def alive(self) -> bool:
        return self._ended is None

    def __len__(self) -> int:
        """How many calls are open."""
        return len(self._open)

    async def close(self) -> None:
        """Closes the connection; open calls end with ReplicaDied."""
        self._end(WireClosed(1000, "closed here"))
        try:
            await cancel_and_wait([self._reader, *self._sending])
        finally:
            await self._wire.close()

    @abstractmethod
    def _parse(self, message: str | bytes) -> tuple[Any, Any, bool]:
        """Parses a message into the id of its call, the event, and whether that is the last one.

        Raises:
            ValueError: it is malformed.
        """

    async def _send(self, message: str | bytes) -> None:
        if self._ended is not None:
            raise self._ended
        try:
            await self._wire.send(message)
        except WireClosed as error:
            raise self._end(error) from error

    async def _read(self) -> None:
        try:
            while True:
                message = await self._wire.receive()
                identity, event, is_last = await parse_if(len(message) >= LARGE, None, self._parse, message)
                inbox = self._open.get(identity)
                if inbox is None:
                    continue  # a ping, or the event of a call that was given up
                if is_last:
                    del self._open[identity]
                if not inbox.dropped:
                    await inbox.put(event)
        except WireClosed as error:
            self._end(error)
        except ValueError as error:
            self._end(WireClosed(_MALFORMED, str(error)))

    def _reader_ended(self, task: asyncio.Task[None]) -> None:
        """Fails open calls, whatever ended the reader."""
        log_failure("reading a WebSocket")(task)
        self._end(WireClosed(1006, "it is read no more"))

    def _end(self, error: WireClosed) -> JinaASGIError:
        """Fails open calls and later ones; returns their error."""
        if self._ended is None:
            self._ended = _closing_error(self._name, error)
            for inbox in self._open.values():
                inbox.fail(self._ended)
            self._open.clear()
        return self._ended


_CALLS = 32  # calls on one socket: half of what a server of ours takes by default
_KEPT = 8  # sockets on which nothing is open
_OWN = frozenset(("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"))

#: The headers of W3C's trace context, of which each call has others: they are not sent in a handshake.
TRACE = ("traceparent", "tracestate")

_Key = frozenset[tuple[str, str]]


L = TypeVar("L", bound=Link)


class Links(Generic[L]):
    """The sockets to one server.

    Args:
        address: its URL, "ws://..." or "wss://...".
        headers: sent with each handshake, without those that are about HTTP's own messages.
        dial: opens a connection.
        link: what a connection is used as.
    """

    def __init__(self, address: str, headers: Mapping[str, str], dial: Dial, link: Callable[[Wire], L]) -> None:
        self._address, self._dial, self._link = address, dial, link
        self._headers = {key: value for key, value in headers.items() if key not in _OWN}
        self._links: dict[L, _Key] = {}
        self._dialling = asyncio.Lock()

    async def take(self, headers: Mapping[str, str], *, streams: bool = False) -> L:
        """A link with the headers of a call and room for it; to be released when the call is over.

        Raises:
            What `dial` raises.
        """
        headers = {**self._headers, **{key: value for key, value in headers.items() if key not in TRACE}}
        key = frozenset(headers.items())
        link = self._free(key, streams)
        if link is None:
            async with self._dialling:
                link = self._free(key, streams)
                if link is None:
                    link = self._link(await self._dial(self._address, headers))
                    self._links[link] = key
        link.streams = streams
        return link

    async def release(self, link: L) -> None:
        """A call on a link is over. Dead ones go, and the oldest of those on which nothing is open."""
        link.streams = False
        idle = [one for one in self._links if not len(one) and not one.streams]
        leaving = [one for one in idle if not one.alive] or idle[:-_KEPT]
        for one in leaving:  # before the first of them is waited for: they are taken no more
            del self._links[one]
        await self._close(leaving)

    async def close(self) -> None:
        """Close the sockets; what is open on them ends with ReplicaDied."""
        links, self._links = self._links, {}
        await self._close(links)

    async def _close(self, links: Collection[L]) -> None:
        """Close some, all of them, whatever becomes of the caller."""
        tasks = [start_task(link.close(), log_failure("closing a WebSocket")) for link in links]
        cancelled = await wait_until_done(tasks)
        try:
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled  # its traceback holds this frame

    def _free(self, key: _Key, streams: bool) -> L | None:
        most = 0 if streams else _CALLS - 1
        for link, of in self._links.items():
            if of == key and link.alive and not link.streams and len(link) <= most:
                return link
        return None
