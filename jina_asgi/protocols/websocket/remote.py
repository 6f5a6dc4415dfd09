"""The transport over this library's WebSocket, in msgpack. The server's description comes by HTTP."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import httpx
import msgspec
import orjson

from jina_asgi.concurrency.offload import LARGE, parse_if
from jina_asgi.concurrency.tasks import log_failure, start_task
from jina_asgi.errors import JinaASGIError, ProtocolError
from jina_asgi.protocols.http.bodies import MSGPACK
from jina_asgi.protocols.problems import error_in
from jina_asgi.protocols.remote.server import ServerClient
from jina_asgi.protocols.remote.transport import (
    OutgoingRequest,
    ServerAnswer,
    ServerDescription,
    Transport,
    steps_until,
    until,
)
from jina_asgi.protocols.size_guard import is_heavy
from jina_asgi.protocols.websocket._messages import buffers_of, event_of, merged
from jina_asgi.protocols.websocket.client import TRACE, Dial, Inbox, Link, Links, Wire
from jina_asgi.types import EMPTY


class CallLink(Link):
    """A connection to this library's WebSocket."""

    def __init__(self, wire: Wire, name: str) -> None:
        super().__init__(wire, name)
        self._ids = itertools.count(1)

    async def begin(self, asked: OutgoingRequest) -> OpenAsk:
        """Sends a call.

        Raises:
            ReplicaDied: the connection is closed. InvalidDocs: the call cannot be written.
        """
        identity, inbox = next(self._ids), Inbox()
        head: dict[str, Any] = {"id": identity, "endpoint": asked.endpoint}
        if (left := asked.time_left) is not None:
            head["timeout"] = left
        head |= {name: asked.headers[name] for name in TRACE if name in asked.headers}
        heavy = asked.is_heavy(MSGPACK)
        message = await parse_if(heavy, None, lambda: merged(head, asked.body(MSGPACK)))
        self._open[identity] = inbox
        try:
            await self._send(message)
        except JinaASGIError:
            self._open.pop(identity, None)
            raise
        except BaseException:  # it may have been sent
            self.cancel(identity)
            inbox.drop()
            raise
        return OpenAsk(self, identity, inbox)

    def cancel(self, identity: int) -> None:
        """Sends the server the cancellation of a call."""
        if identity in self._open and self.alive:
            message = orjson.dumps({"id": identity, "event": "cancel"}).decode()
            start_task(self._cancel(message), log_failure("ending a call on a WebSocket"), kept=self._sending)

    async def _cancel(self, message: str) -> None:
        try:
            await self._send(message)
        except JinaASGIError:
            return  # the connection closed, which ended the call

    def _parse(self, message: str | bytes) -> tuple[Any, Any, bool]:
        """Parses an event: binary if it is a call's, text if it is a ping."""
        try:
            event = orjson.loads(message) if isinstance(message, str) else event_of(message)
            return event.get("id"), event, event.get("event") in ("end", "error")
        except (msgspec.MsgspecError, ValueError, AttributeError) as error:
            raise ValueError(f"the message is not an event: {error}") from error


class OpenAsk:
    """One open call on a `CallLink`."""

    def __init__(self, link: CallLink, identity: int, inbox: Inbox) -> None:
        self._link, self._identity, self._inbox = link, identity, inbox
        self._over = False

    async def next(self) -> dict[str, Any] | None:
        """Returns the next "data" event; None at the end.

        Raises:
            The error that the server reports; ReplicaDied if the connection broke.
        """
        event: dict[str, Any] = await self._inbox.get()
        if event["event"] == "data":
            return event
        self._over = True
        if event["event"] == "error":
            raise error_in(event)
        return None

    def drop(self) -> None:
        """Cancels the call, unless it has ended; its answer is not awaited."""
        if not self._over:
            self._over = True
            self._link.cancel(self._identity)
            self._inbox.drop()

    async def stop(self) -> None:
        """Cancels the call, and returns when the server reports that its work has ended."""
        if not self._over:
            self._link.cancel(self._identity)
            try:
                while await self.next() is not None:
                    pass
            except JinaASGIError:
                self._over = True  # it ended in another way
            finally:
                self._inbox.drop()


class SocketRemote(ServerClient):
    """A server at `url`, the prefix of its endpoints, called over its WebSocket.

    Calls share sockets; an open stream has one of its own, so that a slow reader delays nothing else.

    Args:
        http: for the server's description; its headers are sent with each handshake too.
        url: the prefix, of HTTP: "http://models:8000/lm".
        dial: opens a connection.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, dial: Dial) -> None:
        super().__init__(http, url)
        address = f"ws{url.rstrip('/').removeprefix('http')}/-/ws"
        self._links = Links(address, http.headers, dial, lambda wire: CallLink(wire, self.name))

    async def close(self) -> None:
        """Closes its sockets; open calls end with ReplicaDied."""
        await self._links.close()

    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        async with until(request):
            link = await self._links.take(request.headers)
            try:
                opened = await link.begin(request)
                try:
                    event = await opened.next()
                    while await opened.next() is not None:
                        raise ProtocolError(f"{self.name} answered a call of {request.endpoint} twice")
                finally:
                    opened.drop()
            finally:
                await self._links.release(link)
        raw: Any = None if event is None else event["data"]
        heavy = raw is not None and (len(raw) >= LARGE or is_heavy(MSGPACK, bytes(raw)))
        data = None if raw is None else await parse_if(heavy, None, buffers_of, raw)
        if event is None or data is None:
            raise ProtocolError(f"{self.name} ended a call of {request.endpoint} without an answer")
        return ServerAnswer(data, MSGPACK, event.get("parameters") or {}, event.get("header") or {}, heavy=heavy)

    async def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        """Opens one stream. Closing it early returns when the server reports that its work has ended."""
        async with aclosing(steps_until(request, self._steps(request))) as events:
            async for event in events:
                raw = bytes(event["data"])
                yield ServerAnswer([raw], MSGPACK, EMPTY, EMPTY, heavy=is_heavy(MSGPACK, raw))

    async def _steps(self, request: OutgoingRequest) -> AsyncGenerator[dict[str, Any], None]:
        link = await self._links.take(request.headers, streams=True)
        try:
            opened = await link.begin(request)
            try:
                while (event := await opened.next()) is not None:
                    yield event
            finally:
                await opened.stop()
        finally:
            await self._links.release(link)


class AutoDetectTransport(ServerClient):
    """A server at `url`; until `served` finds a real Jina, calls go to it as to a server of this library.

    Args:
        http: for the server's description.
        url: the prefix, of HTTP: "http://models:8000/lm".
        ours: the transport to a server of this library.
        jinas: makes the transport to a real Jina.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, ours: Transport, jinas: Callable[[], Transport]) -> None:
        super().__init__(http, url)
        self._chosen, self._ours, self._jinas = ours, ours, jinas

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        """Fetches the server's description; raises what `jinas` does, too."""
        served = await super().served(headers)
        if served.ours:
            await self._choose(self._ours)
            return served
        if served.endpoints:  # Jina lists no endpoints where it has a WebSocket
            raise ProtocolError(f"{self.name} has no WebSocket of this library, and none of Jina's; ask it over HTTP")
        if self._chosen is self._ours:
            await self._choose(self._jinas())
        return await self._chosen.served(headers)

    async def close(self) -> None:
        await self._chosen.close()

    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        return await self._chosen.ask(request)

    def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        return self._chosen.events(request)

    async def _choose(self, transport: Transport) -> None:
        before, self._chosen = self._chosen, transport
        if before is not transport:
            await before.close()
