"""The JSON WebSocket's asking half: a Runner whose work is done by an application of this library at a URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from jina_asgi.protocols.remote.http import HttpRunner
from jina_asgi.protocols.remote.server import ServerClient
from jina_asgi.protocols.websocket.client import Dial
from jina_asgi.protocols.websocket.remote import SocketRemote
from jina_asgi.types import Endpoint


class WebSocketRunner(HttpRunner):
    """As `HttpRunner`, over the JSON WebSocket: closing a stream waits until the user's generator is closed.

    Args:
        url: the prefix of the server's endpoints, such as "http://models:8000/lm".
        dial: what opens connections; by default the library `websockets`, of the extra `websocket`.
        http, transport, endpoints, grace, startup_timeout: as of `HttpRunner`. The headers of `http` are sent with
            each handshake.

    Raises:
        DefinitionError: a URL that is none of HTTP's.
        ImportError: without `dial`, where `websockets` is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        dial: Dial | None = None,
        http: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        options: dict[str, Any] = {"grace": grace, "startup_timeout": startup_timeout}
        super().__init__(url, http=http, transport=transport, endpoints=endpoints, **options)
        if dial is None:
            from jina_asgi.protocols.websocket.dial import dialler  # with websockets, an extra

            dial = dialler()
        self._dial = dial

    @asynccontextmanager
    async def _through(self, http: httpx.AsyncClient) -> AsyncIterator[ServerClient]:
        async with SocketRemote(http, self._url, self._dial) as remote:
            yield remote
