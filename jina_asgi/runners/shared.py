"""Shares one lifespan among several users: a Deployment that is mounted twice loads its model once."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from jina_asgi.concurrency import grace as periods
from jina_asgi.errors import DefinitionError
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Runner

logger = logging.getLogger("jina_asgi")


class SharedRunner(Wrapper):
    """The first user to enter loads, the last to leave unloads. All must be on one event loop.

    Args:
        inner: the Runner that answers.
        name: for the log.
        grace: seconds that running calls get when serving ends, in total for all Runners within. `CLOSING` seconds
            later, what still runs is abandoned.
    """

    def __init__(self, inner: Runner, name: str = "a Runner", *, grace: float = 30.0) -> None:
        super().__init__(inner)
        self._name, self._grace = name, grace
        self._users = 0
        self._life: AbstractAsyncContextManager[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Share the lifespan of the inner Runner.

        Raises:
            DefinitionError: it is served on another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._users:
                raise DefinitionError(
                    "this Deployment is served on another event loop; give each a Deployment of its own"
                )
            self._loop, self._lock = loop, asyncio.Lock()
        self._users += 1
        try:
            async with self._lock:
                if self._life is None:
                    life = self.inner.lifespan()
                    await life.__aenter__()
                    self._life = life
            yield
        finally:
            self._users -= 1
            async with self._lock:
                if not self._users and self._life is not None:
                    life, self._life = self._life, None
                    await self._end(life)

    async def _end(self, life: AbstractAsyncContextManager[None]) -> None:
        """End the inner lifespan with the error that this one ends with. No frame of that error's traceback may name it."""
        limit = asyncio.timeout(self._grace + periods.CLOSING)
        try:
            with periods.grace_period(time.monotonic() + self._grace):
                async with limit:
                    await life.__aexit__(*sys.exc_info())
        except TimeoutError:
            if not limit.expired():
                raise
            logger.error(
                "%s did not end within %g s and the grace period of %g s; its remaining work is abandoned",
                self._name,
                periods.CLOSING,
                self._grace,
            )
        finally:
            del limit  # it holds the task, the task its error, and the error's traceback this frame
