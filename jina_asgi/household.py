"""The homes of one source, which may be mounted more than once, and be a node of a Flow: loaded once, hence on one loop.

That of a lifespan, while there is one; what began by itself before ends as a lifespan comes.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
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
    def household(self) -> Household:
        """What it belongs to."""
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
    """Where one source lives, and what it is made of: the nodes of a Flow, which may be served by themselves as well.

    Args:
        parts: the households of those.
    """

    def __init__(self, parts: Callable[[], Iterable[Household]] = tuple) -> None:
        self._parts = parts
        self._homes: weakref.WeakSet[Member] = weakref.WeakSet()
        #: Those of others that this is a part of, too.
        self._users: weakref.WeakSet[Member] = weakref.WeakSet()
        #: Whether applications serve the source, or did.
        self.has_homes = False
        #: Whether there was a lifespan, and is none now.
        self.is_over = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifespans = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """That of a lifespan there is, of this source or of one that shares a part with it."""
        return next((one._loop for one in self._all() if one._loop is not None), None)

    def join(self, home: Member) -> None:
        """An application serves the source."""
        self._homes.add(home)
        self.has_homes = True
        for one in self._all():
            one._users.add(home)

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
        for one in self._all():
            one._begin(here)
        try:
            await self._end_alone(lambda home: home.alone_on is not here)
            yield
        finally:
            for one in self._all():
                one._end()
            await self._end_alone(lambda home: home.alone_on is here and home.household.loop is None)

    def ending(self, *, hurry: bool) -> None:
        """A lifespan is about to end. With the last one the lives of others on its loop end, too."""
        own = self._all()
        for home in self._alone():
            if all(one._lifespans <= (one in own) for one in home.household._all()):
                home.leave(hurry=hurry)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lifespans += 1
            self._loop, self.is_over = self._loop or loop, False

    def _end(self) -> None:
        with self._lock:
            self._lifespans -= 1
            if not self._lifespans:
                self._loop, self.is_over = None, True

    def _all(self) -> list[Household]:
        """This, and the parts of it, and theirs; each once."""
        found = {self: None}
        for part in self._parts():
            found.update(dict.fromkeys(part._all()))
        return list(found)

    async def _end_alone(self, wanted: Callable[[Member], bool]) -> None:
        for home in self._alone():
            if wanted(home):
                await asyncio.to_thread(home.close)

    def _alone(self) -> list[Member]:
        """The homes that began by themselves, of this source and of those that share a part with it."""
        homes = {home: None for one in self._all() for home in list(one._users)}
        return [home for home in homes if home.alone_on is not None]


_ORDER = ["ready", "loading", "failed", "draining", "stopped"]
