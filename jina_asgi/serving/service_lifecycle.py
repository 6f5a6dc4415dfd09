"""The lifecycle of one application's Runner: on the host's event loop within a lifespan, else on this process's own.

`start` begins to load and returns; a call waits for the Runner, `startup_wait` seconds at most. A lifespan takes over
what an earlier call has begun to load. At the end open calls finish within the Runner's grace period, which `hurry` cuts
short.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from functools import partial

from jina_asgi.concurrency.loops import loop_thread
from jina_asgi.concurrency.process_wide import collect_dropped
from jina_asgi.concurrency.tasks import wait_until_done
from jina_asgi.errors import DeadlineExceeded, NotReady
from jina_asgi.serving.lifecycle import Life, ends_with_process, join_server
from jina_asgi.serving.service_group import Member, ServiceGroup
from jina_asgi.types import Runner

logger = logging.getLogger("jina_asgi")

_AT_EXIT = 2.0  # seconds for a life without a lifespan at interpreter exit


class ServiceLifecycle(Member):
    """Loads one Runner and unloads it: within `lifespan`, or by `start` on the event loop of this process's thread."""

    def __init__(self, runner: Runner, startup_wait: float, group: ServiceGroup) -> None:
        self._runner, self._wait, self.group = runner, startup_wait, group
        self._life: Life | None = None
        self._over: Future[None] | None = None  # of that life
        self._is_alone = False  # it has no lifespan
        #: Not a `SharedLifespan`, whose users are on one loop and wait until it has begun: these are on any thread and do
        #: not wait, and the first may take over a life that `start` has begun.
        self._lifespans = 0
        self._lock = threading.Lock()
        self._drain_callbacks: set[Callable[[], None]] = set()
        self.ending = False
        self._health_checks: list[Callable[[], str]] = []
        #: Called, from any thread, when loading begins without a lifespan.
        self.on_lazy_start: Callable[[], None] = lambda: None
        ends_with_process(self)
        group.join(self)

    @property
    def alone_on(self) -> asyncio.AbstractEventLoop | None:
        """The loop of a life that `start` began and no lifespan has taken over; None if there is none."""
        life = self._life
        return life.loop if self._is_alone and life is not None and life.process == os.getpid() else None

    @property
    def state(self) -> str:
        """One of stopped, loading, ready, failed, draining."""
        life = self._current()
        return "stopped" if life is None else life.state

    @property
    def ready(self) -> bool:
        """Whether new calls should be sent here."""
        return not self.unhealthy_reason()

    @property
    def is_draining(self) -> bool:
        """Whether open calls are being finished, and no new call should begin."""
        return self.ending or self.state == "draining"

    def add_health_check(self, check: Callable[[], str]) -> None:
        """Report as ready only while `check` returns ""; else it returns why a part of the service does not work."""
        self._health_checks.append(check)

    def on_drain(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, from any thread, when draining begins. Returns a function that undoes this."""
        self._drain_callbacks.add(callback)
        return partial(self._drain_callbacks.discard, callback)

    def announce(self) -> None:
        """Called when this process is about to end."""
        self.ending = True
        self._notify_draining()

    def _notify_draining(self) -> None:
        for callback in list(self._drain_callbacks):
            callback()

    def unhealthy_reason(self) -> str:
        """Why no call can be answered now, for clients, with the type of the cause only; "" if calls are answered."""
        life = self._current()
        if life is not None and life.state == "failed":
            return life.reason
        if self.ending or (life is not None and life.state in ("draining", "stopped")):
            return "draining"
        if life is not None and life.state == "ready":
            return self._failed_check()
        return "not started" if life is None else "still loading"

    def _failed_check(self) -> str:
        own = getattr(self._runner, "unhealthy_reason", None)
        reason = str(own()) if callable(own) else ""
        return reason or next((why for check in self._health_checks if (why := check())), "")

    async def runner(self, deadline: float | None = None) -> Runner:
        """Wait for the Runner, and return it for use on the running event loop.

        Args:
            deadline: the deadline of the call, a time of `time.monotonic`.

        Raises:
            NotReady: it has not loaded within `startup_wait` seconds, has failed, or is stopping.
            DeadlineExceeded: the deadline has passed.
        """
        life, here = self._life, asyncio.get_running_loop()
        if life is None or life.state != "ready" or life.loop is not here:
            try:
                async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()) as limit:
                    life = await self._loaded()
            except TimeoutError:
                if not limit.expired():
                    raise
                raise DeadlineExceeded("the deadline of this call passed while it waited for loading to end") from None
        return self._runner if life.loop is here else life.bridge

    def _current(self) -> Life | None:
        """The current life. One of before a fork counts as failed."""
        life = self._life
        if life is not None and life.process != os.getpid():
            life.stays_behind()
        return life

    async def _loaded(self) -> Life:
        life = self._current() or self.start()
        if life is not None and life.state == "loading":
            await life.settled(self._wait)
        if life is None or life.state != "ready":
            retry_after = 1.0 if life is None else life.retry_after
            raise NotReady(f"{self.unhealthy_reason()}; try again later", retry_after=retry_after)
        return life

    @asynccontextmanager
    async def lifespan(self, *, wait_ready: bool = False) -> AsyncIterator[None]:
        """Begin to load on this loop; when the application's last lifespan ends, finish open calls and unload.

        A life that `start` began becomes this lifespan's, on its own loop. Loading that has not ended by then is abandoned.

        Raises:
            ExecutorError: with `wait_ready`, the Executor failed to load.
        """
        join_server()
        async with self.group.lifespan():
            life = self._entered()
            hurried = True
            try:
                if wait_ready:
                    await life.settled(None)
                    if life.state != "ready":
                        raise life.failure.error if life.failure else NotReady("stopped before it had loaded")
                yield
                hurried = False
            except Exception:
                hurried = False
                raise
            finally:
                await self._left(life, hurried)

    def _entered(self) -> Life:
        """A lifespan begins; returns its life, which it may share."""
        with self._lock:
            self._lifespans += 1
            self.ending = False
            life = self._life
            if life is None:
                loop = self.group.loop or asyncio.get_running_loop()
                life = self._begun(loop, copy_context())
            elif self._is_alone and life.process == os.getpid():
                self._is_alone = False
                atexit.unregister(self._exit)
            return life

    async def _left(self, life: Life, hurried: bool) -> None:
        """A lifespan ends, and with the last one the life."""
        with self._lock:
            self._lifespans -= 1
            is_last, over = not self._lifespans, self._over
        if not is_last or over is None or self._life is not life or life.process != os.getpid():
            return
        life.end(hurry=hurried)
        self.group.ending(hurry=hurried)
        self._notify_draining()
        waiting = asyncio.wrap_future(over)
        cancelled = await wait_until_done([waiting], hurry=partial(life.end, hurry=True))
        if cancelled is not None:
            raise cancelled
        if not waiting.cancelled():
            waiting.result()

    def start(self) -> Life | None:
        """Begin a life without a lifespan, or before it begins; returns the current life.

        It is on the loop of this process's thread, or on that of a lifespan of the same source, also of a host that is
        starting.
        """
        if self._life is None:
            join_server()
            collect_dropped()  # it may hold a model, whose life ends then
        with self._lock:
            if self._life is None and not self.ending:
                awaited = self.group.is_awaited
                why = "its host starts" if awaited else "no lifespan has reached it"
                logger.info("an application loads now, as it is asked and %s", why)
                if not awaited:
                    self.on_lazy_start()
                self._is_alone = True
                # In a context of its own, without that of the first caller.
                self._begun(self.group.loop or loop_thread("loop").loop, Context())
                atexit.register(self._exit)
            return self._life

    def _begun(self, loop: asyncio.AbstractEventLoop, context: Context) -> Life:
        life = self._life = Life(self._runner, loop)
        self._over = context.run(asyncio.run_coroutine_threadsafe, self._run(life), loop)
        self._over.add_done_callback(partial(self._ended, life))
        return life

    def close(self) -> None:
        """End the life that `start` began, if any, after its open calls."""
        self._close(hurry=False, timeout=None)

    def leave(self, *, hurry: bool = False) -> None:
        """Begin to end the life that `start` began, if any; from any thread, also the garbage collector's."""
        over, life = self._over, self._life
        if self._is_alone and over is not None and life is not None:
            life.end(hurry=hurry)
            over.add_done_callback(lambda _: atexit.unregister(self._exit))
            self._notify_draining()

    def hurry(self) -> None:
        """End this life now: running calls get NotReady; what has not ended after a moment is abandoned."""
        self.announce()
        life = self._life
        if life is not None:
            life.end(hurry=True)

    def _exit(self) -> None:
        self._close(hurry=True, timeout=_AT_EXIT)

    def _close(self, *, hurry: bool, timeout: float | None) -> None:
        with self._lock:
            is_alone, self._is_alone = self._is_alone, False
            life, over = self._life, self._over
        if not is_alone or life is None or over is None or life.process != os.getpid():
            return
        life.end(hurry=hurry)
        self._notify_draining()
        wait([over], timeout)
        atexit.unregister(self._exit)

    async def _run(self, life: Life) -> None:
        try:
            await life.live()
        finally:
            self._ended(life)

    def _ended(self, life: Life, over: Future[None] | None = None) -> None:
        """Called when a life, or its task, has ended; a second call does nothing."""
        life.over()
        with self._lock:
            if self._life is life:
                self._life, self._over, self._is_alone = None, None, False
