"""One life of a Runner, on one event loop: loading, then ready or failed, then draining, then stopped.

If loading fails, it is tried again with growing pauses until the life ends, as the cause may be temporary. A mistake in
the code or in an option is not tried again.

How servers announce the end of this process, and what every application in it does then.

uvicorn announces it by the lifespan only, after all connections have closed, and without a lifespan ends by its signal at
once: so this module extends uvicorn's shutdown.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from jina_asgi.concurrency.lifecycle import health_signal
from jina_asgi.concurrency.process_wide import frozen
from jina_asgi.errors._raised import clear_frames, loggable
from jina_asgi.errors.load_failure import LoadFailure, is_permanent
from jina_asgi.runners.bridge import BridgeRunner
from jina_asgi.runners.pool._restarts import LONGEST_DELAY, Restarts
from jina_asgi.serving.service_group import Member
from jina_asgi.types import Runner

logger = logging.getLogger("jina_asgi")


class Life:
    """The life, begun by running `live`.

    Attributes:
        state: one of loading, ready, failed, draining, stopped.
        failure: why the last attempt to load failed, while the state is "failed".
        is_final: loading is not tried again.
        loop: its event loop. bridge: the Runner for callers on other event loops. process: the pid.
    """

    def __init__(self, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.bridge, self.process = loop, BridgeRunner(runner, loop), os.getpid()
        self.state = "loading"
        self.failure: LoadFailure | None = None
        self.is_final, self._next_try = False, 0.0
        self._runner, self._stop = runner, asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asked = self._hurried = False
        self._waiters: set[asyncio.Future[None]] = set()

    async def live(self) -> None:
        """Load, wait for `end`, unload. A failure is kept: the process stays up, says why, and tries again."""
        self._task = asyncio.current_task()
        try:
            if not self._asked:  # else `end` was called before this began
                await self._between()
        except asyncio.CancelledError:
            pass  # `_end` did this, or the loop is closing: what is open has been closed on the way here
        finally:
            self.over()

    def over(self) -> None:
        """Wakes all who wait, when the life or its task has ended; a second call does nothing."""
        self._become("stopped")
        self.bridge.close()

    async def _between(self) -> None:
        pauses = Restarts()
        while await self._tried(pauses):
            try:
                async with asyncio.timeout(self._next_try - time.monotonic()):
                    await self._stop.wait()
                return
            except TimeoutError:
                gc.collect()  # frees the remains of the last attempt, which may be a model

    async def _tried(self, pauses: Restarts) -> bool:
        """Load, and wait for `end`; True if loading failed and is to be tried again."""
        try:
            async with self._runner.lifespan():
                self.failure = None
                with frozen():
                    self._become("ready")
                    await self._stop.wait()
            return False
        except Exception as error:
            if self.state not in ("loading", "failed"):
                logger.error("an Executor failed while it was being closed", exc_info=loggable(error))
                return False
            self._failed(error, None if is_permanent(error) else pauses)
        if self.is_final:
            await self._stop.wait()
        return not self.is_final

    def _failed(self, error: Exception, pauses: Restarts | None) -> None:
        now = time.monotonic()
        if pauses is None:
            self.is_final, pause, what = True, LONGEST_DELAY, "it is not tried again: mend it and restart"
        else:
            pause = pauses.failed(0, now, random.random())  # noqa: S311  # no secret
            what = f"it is tried again in {pause:.1f} s"
        said = f"an Executor failed to load; its application answers 503, and {what}"
        self.failure, self._next_try = LoadFailure.logged(error, said, before=self.failure), now + pause
        clear_frames(error)
        self._become("failed")

    @property
    def reason(self) -> str:
        """Why it failed to load, for clients, and whether it is tried again; "" if it did not fail."""
        if self.failure is None:
            return ""
        then = "it is not tried again before a restart" if self.is_final else "it is tried again"
        return f"failed to load {self.failure}; {then}"

    @property
    def retry_after(self) -> float:
        """Seconds after which it may be ready: at least one."""
        return max(1.0, self._next_try - time.monotonic()) if self.state == "failed" else 1.0

    def stays_behind(self) -> None:
        """Called after a fork: this process has none of the life's threads, so it counts as failed."""
        if self.state != "failed":
            error = RuntimeError("an application was called before its process was forked")
            what = "have nothing call it until the server has forked its workers"
            self.failure, self.state, self.is_final = LoadFailure.logged(error, what), "failed", True

    def end(self, *, hurry: bool) -> None:
        """Finish open calls, or with `hurry` cancel them, and unload; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._end, hurry)
        except RuntimeError:
            pass  # that loop is closed, so this life is over

    def _end(self, hurry: bool) -> None:
        self._asked = True
        hurry = hurry or self.state in ("loading", "failed")
        if self.state in ("loading", "ready"):
            self._become("draining")
        self._stop.set()
        if hurry and not self._hurried and self._task is not None:
            self._hurried = True
            self._task.cancel()

    async def settled(self, timeout: float | None) -> None:
        """Wait until loading has succeeded or failed, at most `timeout` seconds; on any loop."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)  # before reading `state`: so one side always sees the other's change
        try:
            if self.state == "loading":
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            self._waiters.discard(waiter)

    def _become(self, state: str) -> None:
        self.state = state
        health_signal.notify()
        for waiter in list(self._waiters):
            try:
                waiter.get_loop().call_soon_threadsafe(_release, waiter)
            except RuntimeError:
                pass  # its loop is closed: no task waits on it


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


#: Seconds for open calls if a server ends because code has changed.
_RELOADS = 0.5


_SERVICES: weakref.WeakSet[Member] = weakref.WeakSet()
_shutdown_callbacks: set[Callable[[], None]] = set()
_joined: weakref.WeakSet[Any] = weakref.WeakSet()


def ends_with_process(service: Member) -> None:
    """Register a service that ends with the process."""
    _SERVICES.add(service)


def on_shutdown(callback: Callable[[], None]) -> Callable[[], object]:
    """Call `callback`, from any thread, when a server in this process begins to shut down, and waits for open answers.

    Returns a function that undoes this.
    """
    _shutdown_callbacks.add(callback)
    return partial(_shutdown_callbacks.discard, callback)


def shutdown_begins() -> None:
    """Announce that a server in this process finishes what is open: answers that never end by themselves end now."""
    for callback in list(_shutdown_callbacks):
        callback()


def announce_end() -> None:
    """Announce that this process is about to end: its applications report that they are not ready, and load nothing more."""
    shutdown_begins()
    for service in list(_SERVICES):
        service.announce()


def end_now() -> None:
    """End all open calls of this process now, with an error for their callers."""
    for service in list(_SERVICES):
        service.hurry()


def close_alone() -> None:
    """End all models that were loaded without a lifespan, after their open calls."""
    for service in list(_SERVICES):
        service.close()


def join_server() -> bool:
    """Extend the shutdown of the uvicorn in this process's main thread, if there is one: it handles SIGTERM; or return False.

    With `--reload` open streams end, as they would delay the new code. Models that were loaded without a lifespan are closed
    after the last connection.
    """
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    uvicorn = sys.modules.get("uvicorn.server")
    if uvicorn is None or not isinstance(server, uvicorn.Server):
        return False
    if server in _joined:
        return True
    _joined.add(server)
    shutdown = server.shutdown

    async def joined(sockets: Any = None) -> None:
        ending: asyncio.TimerHandle | None = None
        shutdown_begins()
        if server.config.should_reload:
            announce_end()
            ending = asyncio.get_running_loop().call_later(_RELOADS, end_now)
        try:
            await shutdown(sockets=sockets)
        finally:
            if ending is not None:
                ending.cancel()
            if not server.force_exit:
                await asyncio.to_thread(close_alone)

    server.shutdown = joined
    return True
