"""A Runner that calls a server at a URL over HTTP.

The server may be any application of this library, at the root or behind a prefix, or a real Jina.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from jina_asgi.errors import DefinitionError
from jina_asgi.protocols.remote.runner import RemoteRunner
from jina_asgi.protocols.remote.server import LIMITS, TIMEOUT, ServerClient
from jina_asgi.types import Endpoint


class HttpRunner(RemoteRunner):
    """The endpoints of an HTTP server, as a Runner. Credentials for the server belong to `http`.

    Args:
        url: the prefix of the server's endpoints, such as "http://models:8000/lm".
        http: the client to use, which its owner opens and closes; by default each lifespan has its own.
        transport: the transport of the client that a lifespan makes.
        endpoints, grace, startup_timeout: as in `RemoteRunner`.

    Raises:
        DefinitionError: the URL is not an HTTP URL.
    """

    def __init__(
        self,
        url: str,
        *,
        http: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"{type(self).__name__}({url!r}): expected a URL such as 'http://models:8000/lm'")
        super().__init__(url, endpoints=endpoints, grace=grace, startup_timeout=startup_timeout)
        self._url, self._http, self._transport = url, http, transport

    @asynccontextmanager
    async def _open_transport(self) -> AsyncIterator[ServerClient]:
        if self._http is not None:
            yield ServerClient(self._http, self._url)
            return
        async with httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT, limits=LIMITS) as http:
            yield ServerClient(http, self._url)
