"""Where an application's Runner lives: on the host's loop when a lifespan comes, else on one of its own.

Starting begins the loading and returns; whoever needs the Runner waits for it a while.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jina_asgi.errors import NotReady
from jina_asgi.runners.bridge import BridgeRunner
from jina_asgi.types import Runner

logger = logging.getLogger("jina_asgi")


class Home:
    """One Runner's life, entered by `lifespan`, or begun in a thread by the first who asks."""

    def __init__(self, runner: Runner, startup_wait: float) -> None:
        self._runner, self._wait = runner, startup_wait
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bridge: BridgeRunner | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()
        self.state = "stopped"
        self.failure: BaseException | None = None

    async def runner(self) -> Runner:
        """The Runner as the running loop may call it.

        Raises:
            NotReady: it has not loaded within `startup_wait` seconds, failed to, or is stopping.
        """
        if self.state != "ready":
            await self._until_ready()
        if self._loop is asyncio.get_running_loop():
            return self._runner
        assert self._bridge is not None
        return self._bridge

    def reason(self) -> str:
        """Why the Runner is not ready, for a client: nothing of the cause but its type."""
        if self.failure is not None:
            return f"failed to load ({type(self.failure).__name__}); the log has the cause"
        return {"stopped": "not started", "loading": "still loading"}.get(self.state, self.state)

    @asynccontextmanager
    async def lifespan(self, *, wait_ready: bool = False) -> AsyncIterator[None]:
        """Live on this loop: begin to load, and, on leaving, finish what runs.

        Raises:
            ExecutorError: with `wait_ready`, the Executor failed to load.
        """
        task = asyncio.create_task(self._live(), name="jina-asgi")
        self._begin(asyncio.get_running_loop())
        try:
            if wait_ready:
                await self._until_settled(None)
                if self.failure is not None:
                    raise self.failure
            yield
        finally:
            assert self._stop is not None
            self._stop.set()
            await task

    def start(self) -> None:
        """Live on a loop of our own, in one daemon thread, where no lifespan comes."""
        with self._lock:
            if self.state != "stopped":
                return
            loop = asyncio.new_event_loop()
            self._begin(loop)
            self._thread = threading.Thread(target=self._run, args=(loop,), name="jina-asgi-loop", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """End the thread that `start` began, if it did."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()
            atexit.unregister(self.close)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._bridge = loop, BridgeRunner(self._runner, loop)
        self._stop, self.failure = asyncio.Event(), None
        self._settled.clear()
        self.state = "loading"

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        """Load, live until told to stop, unload. A failure is kept: the process stays up and says why."""
        assert self._stop is not None
        try:
            async with self._runner.lifespan():
                self._settle("ready")
                await self._stop.wait()
                self.state = "draining"
        except Exception as error:
            self.failure = error
            self._settle("failed")
            logger.exception("an Executor failed to load; its application answers 503")
            await self._stop.wait()
        finally:
            self.state = "stopped"

    def _settle(self, state: str) -> None:
        self.state = state
        self._settled.set()
        for waiter in list(self._waiters):
            waiter.get_loop().call_soon_threadsafe(_release, waiter)

    async def _until_ready(self) -> None:
        if self.state == "stopped":
            self.start()
        if self.state == "loading":
            await self._until_settled(self._wait)
        if self.state != "ready":
            raise NotReady(f"{self.reason()}; try again later", retry_after=1.0)

    async def _until_settled(self, timeout: float | None) -> None:
        """Wait until loading has ended, one way or the other, at most `timeout` seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            if not self._settled.is_set():
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            self._waiters.discard(waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
