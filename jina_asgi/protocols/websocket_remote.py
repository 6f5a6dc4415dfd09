"""A server at a URL, asked over its JSON WebSocket: what `remote.Remote` is over HTTP. Descriptions still come by HTTP.

Headers are those of a handshake: calls with other headers have other sockets. An open stream has a socket to itself, so
that a reader that is slow holds up nobody else; sockets are kept for the calls that come next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Self

import httpx

from jina_asgi.errors import ProtocolError
from jina_asgi.protocols.bodies import JSON
from jina_asgi.protocols.remote import Answer, Asked, Remote, Served, until
from jina_asgi.protocols.websocket_link import Dial, Link
from jina_asgi.types import EMPTY

_CALLS = 32  # calls on one socket: half of what a server takes by default
_KEPT = 8  # sockets on which nothing is open
_OWN = frozenset(("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"))

_Key = frozenset[tuple[str, str]]


class SocketRemote(Remote):
    """A server at `url`, the prefix of its endpoints; used as `async with`, which closes its sockets.

    Args:
        http: for the server's description; its headers are sent with each handshake too.
        url: the prefix, of HTTP: "http://models:8000/lm".
        dial: opens a connection.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, dial: Dial) -> None:
        super().__init__(http, url)
        base = url.rstrip("/")
        self._address = f"ws{base.removeprefix('http')}/-/ws"
        self._headers = {key: value for key, value in http.headers.items() if key not in _OWN}
        self._dial = dial
        self._links: dict[Link, _Key] = {}
        self._dialling = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its sockets; what is open on them ends with ReplicaDied."""
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links))

    async def served(self, headers: Mapping[str, str] = EMPTY) -> Served:
        served = await super().served(headers)
        if not served.ours:
            raise ProtocolError(
                f"{self.name} is no server of this library, and has no JSON WebSocket; ask it over HTTP"
            )
        return served

    async def ask(self, asked: Asked, *, media: str = JSON, path: str | None = None) -> Answer:
        """One call, as over HTTP; in JSON whatever `media` says."""
        async with until(asked):
            link = await self._take(asked, streams=False)
            try:
                opened = await link.begin(asked)
                try:
                    event = await opened.next()
                    while await opened.next() is not None:
                        raise ProtocolError(f"{self.name} answered a call of {asked.endpoint} twice")
                finally:
                    opened.drop()
            finally:
                await self._release(link)
        if event is None or not isinstance(event.get("data"), list):
            raise ProtocolError(f"{self.name} ended a call of {asked.endpoint} without an answer")
        return Answer(event["data"], JSON, event.get("parameters") or {}, event.get("header") or {})

    async def events(self, asked: Asked, *, get: bool = False) -> AsyncGenerator[Answer, None]:
        """One stream, as over HTTP. Closing it early returns when the server says that its work has ended."""
        async with aclosing(self._said(asked)) as steps:
            while True:
                async with until(asked):
                    event = await anext(steps, None)
                if event is None:
                    return
                yield Answer([event["data"]], JSON, EMPTY, EMPTY)

    async def _said(self, asked: Asked) -> AsyncGenerator[dict[str, Any], None]:
        link = await self._take(asked, streams=True)
        try:
            opened = await link.begin(asked)
            try:
                while (event := await opened.next()) is not None:
                    yield event
            finally:
                await opened.stop()
        finally:
            await self._release(link)

    async def _take(self, asked: Asked, *, streams: bool) -> Link:
        """A link with the headers of a call and room for it."""
        headers = {**self._headers, **asked.headers}
        key = frozenset(headers.items())
        link = self._free(key, streams)
        if link is None:
            async with self._dialling:
                link = self._free(key, streams)
                if link is None:
                    link = Link(await self._dial(self._address, headers), self.name)
                    self._links[link] = key
        link.streams = streams
        return link

    def _free(self, key: _Key, streams: bool) -> Link | None:
        most = 0 if streams else _CALLS - 1
        for link, of in self._links.items():
            if of == key and link.alive and not link.streams and len(link) <= most:
                return link
        return None

    async def _release(self, link: Link) -> None:
        """A call on a link is over. Dead ones go, and the oldest of those on which nothing is open."""
        link.streams = False
        idle = [one for one in self._links if not len(one) and not one.streams]
        leaving = [one for one in idle if not one.alive] or idle[:-_KEPT]
        for one in leaving:  # before the first of them is waited for: nobody takes them any more
            del self._links[one]
        for one in leaving:
            await one.close()
