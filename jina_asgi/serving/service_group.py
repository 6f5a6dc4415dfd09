"""The services of one source, which may be mounted more than once and be a node of a Flow: it is loaded once, on one loop.

This is a lifespan's loop, while there is one. If a call has begun to load before, the model stays on its loop and the
lifespan takes it over; calls then cross from one loop to the other. If a host announces its start, both are the same loop.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from jina_asgi.concurrency.loops import is_of_thread
from jina_asgi.types import Runner


class Member(ABC):
    """A service, as its group and the end of its process see it."""

    group: ServiceGroup

    @property
    @abstractmethod
    def state(self) -> str:
        """One of stopped, loading, ready, failed, draining."""

    @property
    @abstractmethod
    def alone_on(self) -> asyncio.AbstractEventLoop | None:
        """The loop of a life without a lifespan; None if there is none."""

    @abstractmethod
    def lifespan(self, *, wait_ready: bool = False) -> AbstractAsyncContextManager[None]:
        """A lifespan, which takes over that life."""

    @abstractmethod
    async def runner(self, deadline: float | None = None) -> Runner:
        """Waits for the Runner, and returns it for use on this event loop; raises NotReady if it takes too long."""

    @abstractmethod
    def leave(self, *, hurry: bool = False) -> None:
        """Begin to end the life without a lifespan."""

    @abstractmethod
    def close(self) -> None:
        """End the life without a lifespan after its open calls, and wait for it."""

    @abstractmethod
    def announce(self) -> None:
        """Announce that this process is about to end."""

    @abstractmethod
    def hurry(self) -> None:
        """End now, with all open calls."""


class ServiceGroup:
    """The services of one source, and the groups of its parts: a Flow's nodes may be served by themselves too.

    Args:
        parts: returns the groups of the parts.
    """

    def __init__(self, parts: Callable[[], Iterable[ServiceGroup]] = tuple) -> None:
        self._parts = parts
        self._members: weakref.WeakSet[Member] = weakref.WeakSet()
        #: Also those of the sources of which this one is a part.
        self._users: weakref.WeakSet[Member] = weakref.WeakSet()
        #: Whether an application has served the source.
        self.has_members = False
        self._ended_on: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifespans = 0
        #: The loops of starting hosts whose lifespan will follow.
        self._awaited: list[asyncio.AbstractEventLoop] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of this source, or of one that shares a part with it: of a lifespan, of a life without one, or of a starting
        host."""
        lived = (one._loop for one in self._all())
        alone = (member.alone_on for member in self._alone())
        awaited = (one._awaited[-1] for one in self._all() if one._awaited)
        return next((loop for loop in (*lived, *alone, *awaited) if loop is not None), None)

    @property
    def is_over(self) -> bool:
        """Whether the last lifespan has ended but its loop goes on: the host is ending, and loads nothing again."""
        loop = None if self._ended_on is None else self._ended_on()
        return loop is not None and not loop.is_closed()

    @property
    def is_awaited(self) -> bool:
        """Whether a host is starting whose lifespan will follow."""
        return any(one._awaited for one in self._all())

    def join(self, member: Member) -> None:
        """Add the service of an application."""
        self._members.add(member)
        self.has_members = True
        for one in self._all():
            one._users.add(member)

    def member(self) -> Member | None:
        """A service that is alive, preferably ready; any service if none is alive."""
        members = list(self._members)
        for member in members:
            if member.state == "ready":
                return member
        members.sort(key=lambda member: _ORDER.index(member.state))
        return members[0] if members and (members[0].state != "stopped" or self._loop is None) else None

    def alone(self) -> Member | None:
        """A service that loads, or has loaded, without a lifespan."""
        return next(
            (member for member in self._members if member.alone_on is not None and member.state in _ALIVE), None
        )

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """A lifespan: all services use its loop until it ends, or the loop of one that has loaded already."""
        here = asyncio.get_running_loop()
        alone = (member.alone_on for member in self._alone() if member.state in _ALIVE)
        taken_over = (loop for loop in (*(one._loop for one in self._all()), *alone) if is_of_thread(loop))
        loop = next(taken_over, None) or here
        for one in self._all():
            one._begin(loop)
        try:
            await self._end_alone(lambda member: member.alone_on is not loop or member.state not in _ALIVE)
            yield
        finally:
            for one in self._all():
                one._end()
            await self._end_alone_on(here)

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[None]:
        """A host starts, and its lifespan follows: sources that its own code calls until then are loaded on the same loop.

        If no lifespan follows, they are ended at the end of this.
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
        """A lifespan is about to end. With the last one the other lives on its loop end too."""
        own, here = self._all(), asyncio.get_running_loop()
        for member in self._alone():
            if member.alone_on is here and all(one._lifespans <= (one in own) for one in member.group._all()):
                member.leave(hurry=hurry)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lifespans += 1
            self._loop, self._ended_on = self._loop or loop, None

    def _end(self) -> None:
        with self._lock:
            self._lifespans -= 1
            if not self._lifespans:
                self._loop, self._ended_on = None, weakref.ref(asyncio.get_running_loop())

    def _all(self) -> list[ServiceGroup]:
        """This group and all groups of its parts, recursively, each once."""
        found = {self: None}
        for part in self._parts():
            found.update(dict.fromkeys(part._all()))
        return list(found)

    async def _end_alone(self, wanted: Callable[[Member], bool]) -> None:
        for member in self._alone():
            if wanted(member):
                await asyncio.to_thread(member.close)

    async def _end_alone_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """A lifespan has ended: lives on its loop without a lifespan end, unless another lifespan has them."""
        await self._end_alone(
            lambda member: member.alone_on is loop and not any(one._lifespans for one in member.group._all())
        )

    def _alone(self) -> list[Member]:
        """The services without a lifespan, of this source and of those that share a part with it."""
        members = {member: None for one in self._all() for member in list(one._users)}
        return [member for member in members if member.alone_on is not None]


def awaiting(
    group: ServiceGroup, context: Callable[[Any], AbstractAsyncContextManager[Any]]
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Wraps a host's lifespan, so that the host's own startup may call the source."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            async with group.awaited():
                state = await stack.enter_async_context(context(app))
            yield state

    return lifespan


_ALIVE = ("loading", "ready")
_ORDER = ["ready", "loading", "failed", "draining", "stopped"]
