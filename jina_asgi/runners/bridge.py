"""Calls from any event loop to a Runner that lives on another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner

T = TypeVar("T")
_END: Any = object()


class BridgeRunner(Wrapper):
    """The Runner `inner` on `loop`, as other loops may call it. Cancelling crosses over; so do contextvars."""

    def __init__(self, inner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(inner)
        self._loop = loop

    async def call(self, call: Call, /) -> Result:
        return await self._over(self.inner.call(call))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        steps = self.inner.stream(call)
        try:
            while (docs := await self._over(_next(steps))) is not _END:
                yield docs
        finally:
            await self._over(steps.aclose())

    async def _over(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there; a cancelled caller leaves when it has ended there."""
        there = asyncio.run_coroutine_threadsafe(_caught(work), self._loop)
        here = asyncio.wrap_future(there)
        try:
            result, error = await asyncio.shield(here)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(there.cancel)
            await asyncio.wait([here])
            raise
        if error is not None:
            raise error
        return result


async def _next(steps: AsyncGenerator[Docs, None]) -> Any:
    return await anext(steps, _END)


async def _caught(work: Coroutine[Any, Any, T]) -> tuple[Any, BaseException | None]:
    """The outcome as a value: a future would alter some errors on their way."""
    try:
        return await work, None
    except Exception as error:  # noqa: BLE001  # raised again on the other side
        return None, error
