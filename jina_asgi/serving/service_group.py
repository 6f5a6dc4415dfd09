"""The homes of one source, which may be mounted more than once, and be a node of a Flow: loaded once, hence on one loop.

That of a lifespan, while there is one. What a call has begun to load before goes on where it is, and the lifespan takes it
over: calls cross from its loop to that one. Where a host says that it starts, that is the same loop, and nothing crosses.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from jina_asgi.concurrency.loops import is_of_thread
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

    def lifespan(self, *, wait_ready: bool = False) -> AbstractAsyncContextManager[None]:
        """A lifespan of it, which takes that life over."""
        ...

    async def runner(self, deadline: float | None = None) -> Runner:
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
        self._ended_on: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifespans = 0
        #: Where hosts start whose lifespan will come.
        self._awaited: list[asyncio.AbstractEventLoop] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where this source lives, or one that shares a part with it: in a lifespan, or by itself; or where a host starts."""
        lived = (one._loop for one in self._all())
        alone = (home.alone_on for home in self._alone())
        awaited = (one._awaited[-1] for one in self._all() if one._awaited)
        return next((loop for loop in (*lived, *alone, *awaited) if loop is not None), None)

    @property
    def is_over(self) -> bool:
        """Whether there was a lifespan, is none now, and its loop goes on: the host ends, and loads nothing anew."""
        loop = None if self._ended_on is None else self._ended_on()
        return loop is not None and not loop.is_closed()

    @property
    def is_awaited(self) -> bool:
        """Whether a host starts whose lifespan will come."""
        return any(one._awaited for one in self._all())

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

    def alone(self) -> Member | None:
        """An application of the source that loads, or has, by itself."""
        return next((home for home in self._homes if home.alone_on is not None and home.state in _ALIVE), None)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """A lifespan is here: all homes live on its loop until it ends, or where one of them lives by itself already."""
        here = asyncio.get_running_loop()
        alone = (home.alone_on for home in self._alone() if home.state in _ALIVE)
        taken_over = (loop for loop in (*(one._loop for one in self._all()), *alone) if is_of_thread(loop))
        loop = next(taken_over, None) or here
        for one in self._all():
            one._begin(loop)
        try:
            await self._end_alone(lambda home: home.alone_on is not loop or home.state not in _ALIVE)
            yield
        finally:
            for one in self._all():
                one._end()
            await self._end_alone_on(here)

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[None]:
        """A host starts, and a lifespan comes before this ends: what the host's own code calls until then lives there, too.

        Where none came, what it called has ended at the end of this.
        """
        here, ended_on = asyncio.get_running_loop(), self._ended_on
        for one in self._all():
            one._awaited.append(here)
        self._ended_on = None
        try:
            yield
        finally:
            for one in self._all():
                one._awaited.remove(here)
            if not self._lifespans:
                self._ended_on = ended_on
            await self._end_alone_on(here)

    def ending(self, *, hurry: bool) -> None:
        """A lifespan is about to end. With the last one the lives of others on its loop end, too."""
        own, here = self._all(), asyncio.get_running_loop()
        for home in self._alone():
            if home.alone_on is here and all(one._lifespans <= (one in own) for one in home.household._all()):
                home.leave(hurry=hurry)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lifespans += 1
            self._loop, self._ended_on = self._loop or loop, None

    def _end(self) -> None:
        with self._lock:
            self._lifespans -= 1
            if not self._lifespans:
                self._loop, self._ended_on = None, weakref.ref(asyncio.get_running_loop())

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

    async def _end_alone_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """A lifespan has ended on a loop: what lived there by itself ends, where no other lifespan has it."""
        await self._end_alone(
            lambda home: home.alone_on is loop and not any(one._lifespans for one in home.household._all())
        )

    def _alone(self) -> list[Member]:
        """The homes that began by themselves, of this source and of those that share a part with it."""
        homes = {home: None for one in self._all() for home in list(one._users)}
        return [home for home in homes if home.alone_on is not None]


def awaiting(
    household: Household, context: Callable[[Any], AbstractAsyncContextManager[Any]]
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """The lifespan of a host, ours within it, as one in which the host's own startup may call what it serves."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            async with household.awaited():
                state = await stack.enter_async_context(context(app))
            yield state

    return lifespan


_ALIVE = ("loading", "ready")
_ORDER = ["ready", "loading", "failed", "draining", "stopped"]
