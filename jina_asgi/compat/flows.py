"""Jina's Flow with `asyncio=True`, an AsyncFlow: served like any Flow, called by an asynchronous Client."""

from __future__ import annotations

from asyncio import to_thread
from typing import Any, Self

from jina_asgi.clients.asynchronous import AsyncClient
from jina_asgi.compat.members import FlowMembers


class Flow(FlowMembers):
    """`jina_asgi.Flow` with Jina's additional names; with `asyncio=True` it is an AsyncFlow."""

    def __new__(cls, *, asyncio: bool = False, **_: Any) -> Self:
        return super().__new__(AsyncFlow if asyncio else cls)  # type: ignore[return-value]  # a subclass of ours

    def __init__(self, *, asyncio: bool = False, **options: Any) -> None:
        super().__init__(**options)


class AsyncFlow(Flow):
    """A Flow whose `post` is an async generator; `with` and `async with` both serve it, as in Jina."""

    _asking: AsyncClient | None = None

    @property
    def client(self) -> Any:
        """An asynchronous Client of the running server.

        Raises:
            RuntimeError: no server runs.
        """
        asked = super().client
        if self._asking is None or self._asking.address != asked.address:
            self._asking = asked.asynchronous()
        return self._asking

    async def is_flow_ready(self, **options: Any) -> bool:  # type: ignore[override]  # as the Client's own
        """Whether the running server reports that it is ready."""
        return bool(await self.client.is_flow_ready(**options))

    async def __aenter__(self) -> Self:
        await to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            await asking.close()
        await to_thread(self.close)
