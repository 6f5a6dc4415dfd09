"""The homes of one source, which may be mounted more than once: its model is loaded once, hence on one event loop.

That of a lifespan, while there is one; what began by itself before ends as a lifespan comes.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from jina_asgi.types import Runner


class Member(Protocol):
    """A home, as its household sees it."""

    @property
    def state(self) -> str:
        """One of stopped, loading, ready, failed, draining."""
        ...

    @property
    def alone_on(self) -> asyncio.AbstractEventLoop | None:
        """The loop of a life that no lifespan brought; None where there is no such life."""
        ...

    async def runner(self) -> Runner:
        """The Runner, as this event loop may call it; waits for it a while, then raises NotReady."""
        ...

    def leave(self, *, hurry: bool = False) -> None:
        """Begin to end that life."""
        ...

    def close(self) -> None:
        """End that life, and wait until it has ended."""
        ...


class Household:
    """Where one source lives."""

    def __init__(self) -> None:
        self._homes: weakref.WeakSet[Member] = weakref.WeakSet()
        #: Whether applications serve the source, or did.
        self.has_homes = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifespans = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """That of the lifespan there is."""
        return self._loop

    def join(self, home: Member) -> None:
        """An application serves the source."""
        self._homes.add(home)
        self.has_homes = True

    def home(self) -> Member | None:
        """One that lives, best one that is ready; any, where the source lives nowhere."""
        homes = list(self._homes)
        for home in homes:
            if home.state == "ready":
                return home
        homes.sort(key=lambda home: _ORDER.index(home.state))
        return homes[0] if homes and (homes[0].state != "stopped" or self._loop is None) else None

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """A lifespan is here, whose loop is that of all homes until it ends."""
        here = asyncio.get_running_loop()
        with self._lock:
            self._lifespans += 1
            self._loop = self._loop or here
        try:
            await self._end_alone(but_on=here)
            yield
        finally:
            with self._lock:
                self._lifespans -= 1
                if not self._lifespans:
                    self._loop = None
            if not self._lifespans:
                await self._end_alone()

    def ending(self, *, hurry: bool) -> None:
        """A lifespan is about to end. With the last one the lives of others on its loop end, too."""
        if self._lifespans == 1:
            for home in self._alone():
                home.leave(hurry=hurry)

    async def _end_alone(self, but_on: asyncio.AbstractEventLoop | None = None) -> None:
        for home in self._alone():
            if but_on is None or home.alone_on is not but_on:
                await asyncio.to_thread(home.close)

    def _alone(self) -> list[Member]:
        return [home for home in list(self._homes) if home.alone_on is not None]


_ORDER = ["ready", "loading", "failed", "draining", "stopped"]
