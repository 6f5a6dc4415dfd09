"""Keeps sockets open for later calls: calls with the same headers share a few, and a stream has one of its own.

Headers are sent in the handshake, so calls with other headers have other sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from jina_asgi.concurrency.tasks import log_failure, start_task, wait_until_done
from jina_asgi.protocols.websocket.client import Dial, Link, Wire

_CALLS = 32  # calls on one socket: half of what a server of ours takes by default
_KEPT = 8  # sockets on which nothing is open
_OWN = frozenset(("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"))

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
        headers = {**self._headers, **headers}
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
