"""The transport over a WebSocket of either kind: its server's description says whether it is ours or a real Jina's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping

import httpx

from jina_asgi.errors import ProtocolError
from jina_asgi.protocols.remote.server import ServerClient
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer, ServerDescription, Transport
from jina_asgi.types import EMPTY


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
