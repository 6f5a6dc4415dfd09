"""The asking half of one JSON WebSocket: calls written, each one's events kept for whoever asked.

What carries the messages is a Wire: a connection of the `websockets` library, or an application in this process.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
import orjson

from jina_asgi.concurrency.tasks import cancel_and_wait, log_failure, start_task
from jina_asgi.errors import JinaASGIError, ProtocolError, ReplicaDied, TooLarge
from jina_asgi.protocols.http.bodies import MSGPACK
from jina_asgi.protocols.problem_reader import told_as
from jina_asgi.protocols.remote.server import OutgoingRequest
from jina_asgi.protocols.websocket._packed import event_of, merged

_AHEAD = 16  # events of a stream that may wait for its reader
_TOO_BIG = 1009
_NO_MESSAGE = 1007


class WireClosed(Exception):
    """The connection is over.

    Attributes:
        code: WebSocket's close code; 1006 where there was none.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code


class Wire(Protocol):
    """One open connection. `send` and `receive` raise WireClosed when it is over."""

    async def send(self, message: str | bytes) -> None: ...

    async def receive(self) -> str | bytes: ...

    async def close(self) -> None: ...


#: Opens a connection to a URL with these headers; raises NotReady, or what the server says, as ours.
Dial = Callable[[str, Mapping[str, str]], Awaitable[Wire]]


def died(name: str, error: WireClosed) -> JinaASGIError:
    """What the end of the connection to a server means for the calls on it."""
    if error.code == _TOO_BIG:
        return TooLarge(f"{name} closed the WebSocket: {error}")
    if error.code == _NO_MESSAGE:
        return ProtocolError(f"{name}: {error}")
    return ReplicaDied(f"the WebSocket to {name} closed ({error}); the call may have taken effect")


class _Inbox:
    """The events of one call that have come and have not been read."""

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
        """Nobody reads any more."""
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


def _event(message: str | bytes) -> dict[str, Any]:
    """An event: of a call of ours in binary; else, as a ping is, in text."""
    event: dict[str, Any] = orjson.loads(message) if isinstance(message, str) else event_of(message)
    return event


class Link:
    """One connection and the calls on it.

    A stream whose reader is slow holds up all that comes behind it: it has a link to itself.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire, self._name = wire, name
        self._ids = itertools.count(1)
        self._open: dict[int, _Inbox] = {}
        self._ended: JinaASGIError | None = None
        self._reader = start_task(self._read(), self._read_over)
        self._cancels: set[asyncio.Task[None]] = set()
        self.streams = False

    @property
    def alive(self) -> bool:
        return self._ended is None

    def __len__(self) -> int:
        """How many calls are open."""
        return len(self._open)

    async def begin(self, asked: OutgoingRequest) -> OpenAsk:
        """Send a call.

        Raises:
            ReplicaDied: the connection is gone. InvalidDocs: the call cannot be written.
        """
        identity, inbox = next(self._ids), _Inbox()
        head: dict[str, Any] = {"id": identity, "endpoint": asked.endpoint}
        if asked.deadline is not None:
            head["timeout"] = max(0.0, asked.deadline - time.monotonic())
        message = merged(head, asked.body(MSGPACK))
        if self._ended is not None:
            raise self._ended
        self._open[identity] = inbox
        try:
            await self._wire.send(message)
        except WireClosed as error:
            self._end(error)
            raise died(self._name, error) from error
        except BaseException:  # it may have been sent
            self.cancel(identity)
            inbox.drop()
            raise
        return OpenAsk(self, identity, inbox)

    def cancel(self, identity: int) -> None:
        """Nobody waits for a call any more: the server is told."""
        inbox = self._open.get(identity)
        if inbox is not None and self.alive:
            start_task(self._cancel(identity), log_failure("ending a call on a WebSocket"), kept=self._cancels)

    async def close(self) -> None:
        """Close the connection; calls that are open end with ReplicaDied."""
        self._end(WireClosed(1000, "closed here"))
        try:
            await cancel_and_wait([self._reader, *self._cancels])
        finally:
            await self._wire.close()

    async def _cancel(self, identity: int) -> None:
        try:
            await self._wire.send(orjson.dumps({"id": identity, "event": "cancel"}).decode())
        except WireClosed as error:
            self._end(error)

    async def _read(self) -> None:
        try:
            while True:
                event = _event(await self._wire.receive())
                identity: Any = event.get("id")
                inbox = self._open.get(identity)
                if inbox is None:
                    continue  # a ping, or of a call that was never ours
                if event.get("event") in ("end", "error"):
                    del self._open[identity]
                if not inbox.dropped:
                    await inbox.put(event)
        except WireClosed as error:
            self._end(error)
        except (msgspec.MsgspecError, ValueError, AttributeError) as error:
            self._end(WireClosed(_NO_MESSAGE, f"what came is no event: {error}"))

    def _read_over(self, task: asyncio.Task[None]) -> None:
        """Nothing more is read, whatever ended that: those who wait are told."""
        log_failure("reading a WebSocket")(task)
        self._end(WireClosed(1006, "it is read no more"))

    def _end(self, error: WireClosed) -> None:
        if self._ended is None:
            self._ended = died(self._name, error)
            for inbox in self._open.values():
                inbox.fail(self._ended)
            self._open.clear()


class OpenAsk:
    """One open call, for whoever asked."""

    def __init__(self, link: Link, identity: int, inbox: _Inbox) -> None:
        self._link, self._identity, self._inbox = link, identity, inbox
        self._over = False

    async def next(self) -> dict[str, Any] | None:
        """The next "data" event; None at the end.

        Raises:
            What the server says, as ours; ReplicaDied where the connection broke.
        """
        event: dict[str, Any] = await self._inbox.get()
        if event["event"] == "data":
            return event
        self._over = True
        if event["event"] == "error":
            raise told_as(event.get("status", 500), event, retry_after=event.get("retry_after", 1.0))
        return None

    def drop(self) -> None:
        """Nobody waits for the answer any more."""
        if not self._over:
            self._over = True
            self._link.cancel(self._identity)
            self._inbox.drop()

    async def stop(self) -> None:
        """End the call, and return when its server says that its work has ended."""
        if not self._over:
            self._link.cancel(self._identity)
            try:
                while await self.next() is not None:
                    pass
            except JinaASGIError:
                self._over = True  # it has ended in another way: nobody asks any more
            finally:
                self._inbox.drop()
