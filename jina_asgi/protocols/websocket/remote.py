"""A server at a URL, asked over its WebSocket in msgpack: what `remote.server.ServerClient` is over HTTP.

Descriptions come by HTTP.

An open stream has a socket to itself, so that a reader that is slow holds up nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Self

import httpx

from jina_asgi.errors import ProtocolError
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from jina_asgi.protocols.remote.server import OutgoingRequest, ServerAnswer, ServerClient, ServerDescription, until
from jina_asgi.protocols.websocket._packed import buffers_of
from jina_asgi.protocols.websocket.client import Dial, Link
from jina_asgi.protocols.websocket.client_pool import Links
from jina_asgi.types import EMPTY


class SocketRemote(ServerClient):
    """A server at `url`, the prefix of its endpoints; used as `async with`, which closes its sockets.

    Args:
        http: for the server's description; its headers are sent with each handshake too.
        url: the prefix, of HTTP: "http://models:8000/lm".
        dial: opens a connection.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, dial: Dial) -> None:
        super().__init__(http, url)
        base = url.rstrip("/")
        address = f"ws{base.removeprefix('http')}/-/ws"
        self._links = Links(address, http.headers, dial, lambda wire: Link(wire, self.name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its sockets; what is open on them ends with ReplicaDied."""
        await self._links.close()

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        served = await super().served(headers)
        if not served.ours:
            raise ProtocolError(
                f"{self.name} is no server of this library, and has no JSON WebSocket; ask it over HTTP"
            )
        return served

    async def ask(self, asked: OutgoingRequest, *, media: str = JSON, path: str | None = None) -> ServerAnswer:
        """One call, as over HTTP; in msgpack whatever `media` says."""
        async with until(asked):
            link = await self._links.take(asked.headers)
            try:
                opened = await link.begin(asked)
                try:
                    event = await opened.next()
                    while await opened.next() is not None:
                        raise ProtocolError(f"{self.name} answered a call of {asked.endpoint} twice")
                finally:
                    opened.drop()
            finally:
                await self._links.release(link)
        data = None if event is None else buffers_of(event["data"])
        if event is None or data is None:
            raise ProtocolError(f"{self.name} ended a call of {asked.endpoint} without an answer")
        return ServerAnswer(data, MSGPACK, event.get("parameters") or {}, event.get("header") or {})

    async def events(
        self, asked: OutgoingRequest, *, media: str = JSON, get: bool = False
    ) -> AsyncGenerator[ServerAnswer, None]:
        """One stream, as over HTTP. Closing it early returns when the server says that its work has ended."""
        async with aclosing(self._said(asked)) as steps:
            while True:
                async with until(asked):
                    event = await anext(steps, None)
                if event is None:
                    return
                yield ServerAnswer([bytes(event["data"])], MSGPACK, EMPTY, EMPTY)

    async def _said(self, asked: OutgoingRequest) -> AsyncGenerator[dict[str, Any], None]:
        link = await self._links.take(asked.headers, streams=True)
        try:
            opened = await link.begin(asked)
            try:
                while (event := await opened.next()) is not None:
                    yield event
            finally:
                await opened.stop()
        finally:
            await self._links.release(link)
