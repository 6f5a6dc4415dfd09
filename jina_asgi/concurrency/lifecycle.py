"""The lifecycle of a Runner: it loads, is ready, drains and has stopped.

Wakes the health checks of this process to look again: an `unhealthy_reason` may have changed.

There is one signal for the process. Changes are rare, and a look takes a microsecond.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from jina_asgi.errors import NotReady

#: Seconds after the grace period that closing may take; then what still runs is abandoned.
CLOSING = 15.0

_until: ContextVar[float | None] = ContextVar("jina_asgi_grace_until", default=None)


def grace_deadline() -> float | None:
    """Return the moment the current grace period ends, on the monotonic clock; None outside of one."""
    return _until.get()


def remaining_grace(grace: float) -> float:
    """Return the seconds that a Runner with its own period of `grace` may still wait for its calls."""
    moment = _until.get()
    return grace if moment is None else max(0.0, min(grace, moment - time.monotonic()))


@contextmanager
def grace_period(moment: float | None) -> Iterator[None]:
    """Start a grace period that ends at `moment`, unless one has started already."""
    token = _until.set(moment) if _until.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _until.reset(token)


#: Seconds that a hurried end waits for what cannot be cancelled.
PATIENCE = 1.0
#: The states in which admitted calls run.
RUNNING = ("ready", "draining")


class Lifecycle:
    """The state of one Runner, and its end: running calls finish within the grace period, then the rest is stopped.

    A cancellation does not interrupt the end, but hurries it, and is raised afterwards.

    Args:
        grace: seconds that running calls get.

    Attributes:
        state: `NotReady.NOT_STARTED`, "loading", "ready", "draining" or "stopped".
        is_hurried: whether the Runner has to end without a grace period.
        idle: set by the Runner when its last call ends.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._grace = grace
        self.state: str = NotReady.NOT_STARTED
        self.is_hurried = False
        self.idle = asyncio.Event()
        #: The last cancellation; emptied, as its traceback holds frames that name this.
        self._cancellations: list[asyncio.CancelledError] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Enter the state "loading", and leave the block as "stopped"."""
        self.state, self.is_hurried, self.idle = "loading", False, asyncio.Event()
        try:
            yield
        finally:
            self.state = "stopped"
            self._cancellations.clear()

    @asynccontextmanager
    async def ending(self, end: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """After the block, which a cancellation hurries, enter the state "draining" and await `end`."""
        try:
            yield
        except asyncio.CancelledError:
            self.is_hurried = True
            raise
        finally:
            self.state = "draining"
            await end()
            if self._cancellations:
                raise self._cancellations.pop()

    async def drain(self, calls: object, *others: Callable[[], Awaitable[object]]) -> bool:
        """Wait within the grace period, if there are `calls`, until `idle` is set, then for `others`; whether all ended."""
        if calls:
            self.idle.clear()
        else:
            self.idle.set()
        try:
            async with asyncio.timeout(0.0 if self.is_hurried else remaining_grace(self._grace)):
                for wait in (self.idle.wait, *others):
                    await wait()
        except TimeoutError:
            return False
        except asyncio.CancelledError as error:
            self._hurry(error)
            return False
        return True

    async def finish(self, work: asyncio.Future[Any], limit: float | None = None) -> None:
        """Wait for `work` at most `limit` seconds, or `PATIENCE` seconds if hurried."""
        while not work.done():
            try:
                await asyncio.wait([work], timeout=PATIENCE if self.is_hurried else limit)
                return
            except asyncio.CancelledError as error:
                self._hurry(error)

    def _hurry(self, error: asyncio.CancelledError) -> None:
        self.is_hurried = True
        self._cancellations[:] = [error]


class SharedLifespan:
    """One lifespan for several users on one event loop: it begins with the first user, and ends with the last one.

    A user that comes or goes meanwhile waits. The lifespan ends with the error of the last user, if it left with one.

    Attributes:
        users: how many have entered, or are about to.
    """

    def __init__(self) -> None:
        self.users = 0
        self._life: AbstractAsyncContextManager[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    @property
    def is_elsewhere(self) -> bool:
        """Whether its users are on another event loop, so that it cannot be entered here."""
        return self.users > 0 and self._loop is not asyncio.get_running_loop()

    @asynccontextmanager
    async def entered(self, lifespan: Callable[[], AbstractAsyncContextManager[None]]) -> AsyncIterator[None]:
        """Be one of the users; `lifespan` makes the lifespan for the first one."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        self.users += 1
        try:
            async with self._lock:
                if self._life is None:
                    life = lifespan()
                    await life.__aenter__()
                    self._life = life
            yield
        finally:
            self.users -= 1
            async with self._lock:
                if not self.users and self._life is not None:
                    life, self._life = self._life, None
                    await life.__aexit__(*sys.exc_info())


class HealthSignal:
    """Calls its watchers at each `notify`, from any thread."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[], None]] = set()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` at each change, in the thread that notifies. Returns a function that undoes this."""
        self._watchers.add(callback)
        return partial(self._watchers.discard, callback)

    def notify(self) -> None:
        """Something that an `unhealthy_reason` is made of has changed."""
        for callback in tuple(self._watchers):
            callback()


health_signal = HealthSignal()
