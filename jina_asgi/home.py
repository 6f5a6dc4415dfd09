"""Where an application's Runner lives: on the host's loop when a lifespan comes, else on this process's own.

Starting begins the loading and returns; whoever needs the Runner waits for it a while. Ending finishes what runs,
within the Runner's own grace period; hurrying ends that period.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial

from jina_asgi._raised import loggable
from jina_asgi.ending import ends_with_process, join_server
from jina_asgi.errors import NotReady
from jina_asgi.failures import Failure
from jina_asgi.heap import frozen, look_for_dropped
from jina_asgi.household import Household
from jina_asgi.loop_thread import loop_thread
from jina_asgi.runners.bridge import BridgeRunner
from jina_asgi.tasks import begun, ended
from jina_asgi.types import Runner

logger = logging.getLogger("jina_asgi")

_AT_EXIT = 2.0  # seconds that a life of its own gets at interpreter exit


class Home:
    """One Runner's life, entered by `lifespan`, or begun on the loop of this process's thread by the first who asks."""

    def __init__(self, runner: Runner, startup_wait: float, household: Household) -> None:
        self._runner, self._wait, self.household = runner, startup_wait, household
        self._life: _Life | None = None
        self._own: Future[None] | None = None
        self._lock = threading.Lock()
        self._followers: set[Callable[[], None]] = set()
        self.ending = False
        self._needed: list[Callable[[], str]] = []
        #: Called, from any thread, when a life begins that no lifespan brought.
        self.began_alone: Callable[[], None] = lambda: None
        ends_with_process(self)
        household.join(self)

    @property
    def alone_on(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the life that `start` began; None where there is no such life."""
        life = self._life
        return None if self._own is None or life is None else life.loop

    @property
    def state(self) -> str:
        """One of stopped, loading, ready, failed, draining."""
        life = self._current()
        return "stopped" if life is None else life.state

    @property
    def ready(self) -> bool:
        """Whether new calls should be sent here."""
        return self.state == "ready" and not self.ending and not self._trouble()

    @property
    def leaving(self) -> bool:
        """Whether what is open is being finished, and nothing new should begin."""
        return self.ending or self.state == "draining"

    def need(self, trouble: Callable[[], str]) -> None:
        """Be ready only where this says nothing, too: it tells why something beside the Runner cannot answer."""
        self._needed.append(trouble)

    def follow(self, told: Callable[[], None]) -> None:
        """Have `told` called, from any thread, when `leaving` begins: for what stays open between calls."""
        self._followers.add(told)

    def unfollow(self, told: Callable[[], None]) -> None:
        """Have it called no more."""
        self._followers.discard(told)

    def announce(self) -> None:
        """This process is about to end."""
        self.ending = True
        self._tell()

    def _tell(self) -> None:
        for told in list(self._followers):
            told()

    def reason(self) -> str:
        """Why the Runner is not ready, for a client: nothing of the cause but its type."""
        life = self._current()
        if life is not None and life.failure is not None:
            return f"failed to load {life.failure}"
        if self.ending or (life is not None and life.state in ("draining", "stopped")):
            return "draining"
        if life is not None and life.state == "ready":
            return self._trouble()
        return "not started" if life is None else "still loading"

    def _trouble(self) -> str:
        trouble = getattr(self._runner, "trouble", None)
        said = str(trouble()) if callable(trouble) else ""
        return said or next((why for needed in self._needed if (why := needed())), "")

    async def runner(self) -> Runner:
        """The Runner as the running loop may call it.

        Raises:
            NotReady: it has not loaded within `startup_wait` seconds, failed to, or is stopping.
        """
        life = self._life
        here = asyncio.get_running_loop()
        if life is None or life.state != "ready" or life.loop is not here:
            life = await self._loaded()
        return self._runner if life.loop is here else life.bridge

    def _current(self) -> _Life | None:
        """The life there is. One that began before this process was forked stayed behind, and counts as failed."""
        life = self._life
        if life is not None and life.process != os.getpid():
            life.stays_behind()
        return life

    async def _loaded(self) -> _Life:
        life = self._current() or self.start()
        if life is not None and life.state == "loading":
            await life.settled(self._wait)
        if life is None or life.state != "ready":
            raise NotReady(f"{self.reason()}; try again later", retry_after=1.0)
        return life

    @asynccontextmanager
    async def lifespan(self, *, wait_ready: bool = False) -> AsyncIterator[None]:
        """Live on this loop: begin to load, and, on leaving, finish what runs.

        Loading that has not ended by then is abandoned. Within a lifespan of the same application (it is mounted
        twice) this one does nothing.

        Raises:
            ExecutorError: with `wait_ready`, the Executor failed to load.
        """
        join_server()
        async with self.household.lifespan():
            if self._own is not None:  # it was asked before the lifespan came
                await asyncio.to_thread(self.close)
            async with self._lived(wait_ready):
                yield

    @asynccontextmanager
    async def _lived(self, wait_ready: bool) -> AsyncIterator[None]:
        with self._lock:
            shared = self._life is not None
            life = self._life = self._life or _Life(self._runner, asyncio.get_running_loop())
            self.ending = False
        if shared:
            yield
            return
        task = begun(life.live(), life.over, name="jina-asgi")
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
            life.end(hurry=hurried)
            self.household.ending(hurry=hurried)
            self._tell()
            try:
                if (cancelled := await ended([task], hurry=partial(life.end, hurry=True))) is not None:
                    raise cancelled
            finally:
                self._life = None

    def start(self) -> _Life | None:
        """Live where no lifespan comes; the life there is.

        On the loop of this process's own thread, or on that where the same source has a lifespan, elsewhere.
        """
        if self._life is None:
            join_server()
            look_for_dropped()  # which may hold a model, and whose life ends then
        with self._lock:
            if self._life is None and not self.ending:
                loop = self.household.loop or loop_thread("loop").loop
                life = self._life = _Life(self._runner, loop)
                logger.info("an application loads now, as it is asked and no lifespan has reached it")
                self.began_alone()
                # In a context of its own: nothing of who happened to ask first.
                self._own = Context().run(asyncio.run_coroutine_threadsafe, self._run(life), loop)
                atexit.register(self._exit)
            return self._life

    def close(self) -> None:
        """End the life that `start` began, if it did, once what runs there has finished."""
        self._close(hurry=False, timeout=None)

    def leave(self, *, hurry: bool = False) -> None:
        """Begin to end the life that `start` began, if it did; from any thread, also the garbage collector's."""
        own, life = self._own, self._life
        if own is not None and life is not None:
            life.end(hurry=hurry)
            own.add_done_callback(lambda _: atexit.unregister(self._exit))
            self._tell()

    def hurry(self) -> None:
        """End this life now: what still runs is told NotReady, and the rest is left behind after a moment."""
        self.announce()
        life = self._life
        if life is not None:
            life.end(hurry=True)

    def _exit(self) -> None:
        self._close(hurry=True, timeout=_AT_EXIT)

    def _close(self, *, hurry: bool, timeout: float | None) -> None:
        with self._lock:
            own, self._own = self._own, None
            life = self._life
        if own is None or (life is not None and life.process != os.getpid()):
            return
        if life is not None:
            life.end(hurry=hurry)
        self._tell()
        wait([own], timeout)
        atexit.unregister(self._exit)

    async def _run(self, life: _Life) -> None:
        try:
            await life.live()
        finally:
            with self._lock:
                if self._life is life:
                    self._life = None


class _Life:
    """One life of a Runner, on one loop: loading, then ready or failed, then draining, then stopped."""

    def __init__(self, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.bridge, self.process = loop, BridgeRunner(runner, loop), os.getpid()
        self.state = "loading"
        self.failure: Failure | None = None
        self._runner, self._stop = runner, asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asked = self._hurried = False
        self._waiters: set[asyncio.Future[None]] = set()

    async def live(self) -> None:
        """Load, live until told to stop, unload. A failure is kept: the process stays up and says why."""
        self._task = asyncio.current_task()
        try:
            if not self._asked:  # told to end before this began
                await self._between()
        except asyncio.CancelledError:
            pass  # `_end` did this, or the loop is closing: what is open has been closed on the way here
        finally:
            self.over()

    def over(self, task: object = None) -> None:
        """It has ended, or its task has before it began: whoever waits is told; again does nothing."""
        self._become("stopped")
        self.bridge.close()

    async def _between(self) -> None:
        try:
            async with self._runner.lifespan():
                with frozen():
                    self._become("ready")
                    await self._stop.wait()
        except Exception as error:
            if self.state != "loading":
                logger.error("an Executor failed while it was being closed", exc_info=loggable(error))
                return
            self.failure = Failure.logged(error, "an Executor failed to load; its application answers 503")
            self._become("failed")
            await self._stop.wait()

    def stays_behind(self) -> None:
        """This process was forked from the one where it began, and has none of its threads."""
        if self.state != "failed":
            error = RuntimeError("an application was called before its process was forked")
            what = "have nothing call it until the server has forked its workers"
            self.failure, self.state = Failure.logged(error, what), "failed"

    def end(self, *, hurry: bool) -> None:
        """Finish what runs, or with `hurry` stop it, and unload; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._end, hurry)
        except RuntimeError:
            pass  # that loop is closed, so this life is over

    def _end(self, hurry: bool) -> None:
        self._asked = True
        hurry = hurry or self.state == "loading"
        if self.state in ("loading", "ready"):
            self._become("draining")
        self._stop.set()
        if hurry and not self._hurried and self._task is not None:
            self._hurried = True
            self._task.cancel()

    async def settled(self, timeout: float | None) -> None:
        """Wait until loading has ended, one way or the other, at most `timeout` seconds; on any loop."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)  # before the look at `state`: one side always sees the other's word
        try:
            if self.state == "loading":
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            self._waiters.discard(waiter)

    def _become(self, state: str) -> None:
        self.state = state
        for waiter in list(self._waiters):
            try:
                waiter.get_loop().call_soon_threadsafe(_release, waiter)
            except RuntimeError:
                pass  # its loop is closed: nobody waits any more


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
