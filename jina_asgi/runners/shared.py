"""One life for several lifespans: a Deployment that is mounted twice loads its model once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from jina_asgi.errors import DefinitionError
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Runner


class SharedRunner(Wrapper):
    """Whoever enters first loads; whoever leaves last unloads. All of them on one event loop."""

    def __init__(self, inner: Runner) -> None:
        super().__init__(inner)
        self._users = 0
        self._life: AbstractAsyncContextManager[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Share the life of the inner Runner.

        Raises:
            DefinitionError: it lives on another event loop.
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
            ending = sys.exc_info()
            self._users -= 1
            async with self._lock:
                if not self._users and self._life is not None:
                    life, self._life = self._life, None
                    await life.__aexit__(*ending)
