"""A Runner whose calls are executed by an application over its WebSocket: what a Client does, as the conformance suite asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp

from jina_asgi.protocols.problems import error_of
from jina_asgi.protocols.remote.runner import RemoteRunner
from jina_asgi.protocols.remote.transport import Transport
from jina_asgi.protocols.websocket.asgi_transport import InProcessSocket, SocketClosed, SocketRefused, socket_scope
from jina_asgi.protocols.websocket.client import Dial, Wire, WireClosed
from jina_asgi.protocols.websocket.dial import dialler
from jina_asgi.protocols.websocket.remote import SocketRemote


class WebSocketRunner(RemoteRunner):
    """The endpoints of a server, as a Runner over its WebSocket; options are those of RemoteRunner."""

    def __init__(
        self,
        url: str,
        *,
        dial: Dial | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, self._connected, **options)
        self._url, self._dial, self._transport = url, dial or dialler(), transport

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Transport]:
        async with (
            httpx.AsyncClient(transport=self._transport) as http,
            SocketRemote(http, self._url, self._dial) as remote,
        ):
            yield remote


class InProcessWire(Wire):
    """A socket on an app, for the client half of a WebSocket."""

    def __init__(self, socket: InProcessSocket) -> None:
        self._socket = socket

    async def send(self, message: str | bytes) -> None:
        self._socket.send_raw(message)

    async def receive(self) -> str | bytes:
        try:
            return await self._socket.receive_raw()
        except SocketClosed as error:
            raise WireClosed(error.code, error.reason) from error

    async def close(self) -> None:
        await self._socket.close()


def app_dialler(app: ASGIApp, *, subprotocols: Sequence[str] = ()) -> Dial:
    """Opens sockets on an app, without a network; `subprotocols` are offered."""

    async def dial(url: str, headers: Mapping[str, str]) -> Wire:
        socket = InProcessSocket(app, socket_scope(url, list(headers.items()), subprotocols))
        try:
            await socket.open()
        except SocketRefused as error:
            raise error_of(error.status, {}, error.body) from error
        return InProcessWire(socket)

    return dial
