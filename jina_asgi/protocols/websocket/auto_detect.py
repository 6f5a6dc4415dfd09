"""A server asked over a WebSocket, ours or a real Jina's Flow: which of the two it is, its description says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping

import httpx

from jina_asgi.errors import ProtocolError
from jina_asgi.protocols.http.bodies import JSON
from jina_asgi.protocols.remote.server import OutgoingRequest, ServerAnswer, ServerClient, ServerDescription
from jina_asgi.types import EMPTY


class AutoDetectTransport(ServerClient):
    """A server at `url`; asked as ours until `served` has found that it is not.

    Args:
        http: for the server's description.
        url: the prefix, of HTTP: "http://models:8000/lm".
        ours: what asks a server of this library.
        jinas: what makes that which asks a real Jina.
    """

    def __init__(
        self, http: httpx.AsyncClient, url: str, ours: ServerClient, jinas: Callable[[], ServerClient]
    ) -> None:
        super().__init__(http, url)
        self._asked, self._ours, self._jinas = ours, ours, jinas

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        """What the server answers; raises as `ServerClient.served`, and what `jinas` does."""
        served = await super().served(headers)
        if served.ours:
            await self._ask_by(self._ours)
            return served
        if served.endpoints:  # Jina's own tells none where it has a WebSocket
            raise ProtocolError(f"{self.name} has no WebSocket of this library, and none of Jina's; ask it over HTTP")
        if self._asked is self._ours:
            await self._ask_by(self._jinas())
        return await self._asked.served(headers)

    async def close(self) -> None:
        await self._asked.close()

    async def ask(self, asked: OutgoingRequest, *, media: str = JSON, path: str | None = None) -> ServerAnswer:
        return await self._asked.ask(asked, media=media)

    def events(
        self, asked: OutgoingRequest, *, media: str = JSON, get: bool = False
    ) -> AsyncGenerator[ServerAnswer, None]:
        return self._asked.events(asked)

    async def _ask_by(self, other: ServerClient) -> None:
        before, self._asked = self._asked, other
        if before is not other:
            await before.close()
