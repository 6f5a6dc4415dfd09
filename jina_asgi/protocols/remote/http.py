"""HTTP's asking half: a Runner whose work is done by a server at a URL.

The server may be any of this library's applications, at the root or behind a prefix, or a real Jina.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from jina_asgi.errors import DefinitionError
from jina_asgi.protocols.remote.runner import RemoteRunner
from jina_asgi.protocols.remote.server import LIMITS, TIMEOUT, Remote
from jina_asgi.types import Endpoint


class HttpRunner(RemoteRunner):
    """The endpoints of a server, as a Runner; credentials for the server belong to `http`.

    Args:
        url: the prefix of the server's endpoints, such as "http://models:8000/lm".
        http: the client to ask with, open and closed by whoever made it.
        transport: what the client that is otherwise made for each lifespan sends through.
        endpoints, grace, startup_timeout: as of `RemoteRunner`.

    Raises:
        DefinitionError: a URL that is none of HTTP's.
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
    async def _reached(self) -> AsyncIterator[Remote]:
        async with self._client() as http, self._through(http) as remote:
            yield remote

    @asynccontextmanager
    async def _through(self, http: httpx.AsyncClient) -> AsyncIterator[Remote]:
        yield Remote(http, self._url)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        if self._http is not None:
            yield self._http
            return
        async with httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT, limits=LIMITS) as http:
            yield http
