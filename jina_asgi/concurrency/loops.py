"""Event loops: the loop class that processes and threads run, and loops in daemon threads.

The threads serve synchronous callers that have no loop. A process has two: one for all synchronous Clients, one for
applications that receive no lifespan and for WSGI. Each starts at its first use, again in each process, as threads do
not survive a fork. Coroutines of many threads run concurrently there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

from jina_asgi.concurrency.process_wide import ProcessLock, end_if_forked

T = TypeVar("T")

logger = logging.getLogger("jina_asgi")


class LoopThread:
    """An event loop in a daemon thread that lasts as long as the process."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"jina-asgi-{name}", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether the caller runs in this thread, and so must not wait for its work."""
        return threading.current_thread() is self._thread

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop, with the caller's contextvars."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop; the caller waits for the future."""
        if self.is_here:
            work.close()
            raise RuntimeError("a synchronous Client cannot wait on its own event loop; use Client(asyncio=True) here")
        return self.begin(work)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; an interrupt cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:  # raised by one coroutine; the others go on
                end_if_forked(self.process, error)
                logger.exception("a coroutine asked to end the process, from a thread that cannot")


_lock = ProcessLock()
_shared: dict[str, LoopThread] = {}


def loop_thread(name: Literal["client", "loop"]) -> LoopThread:
    """Return this process's loop thread for Clients, or the one for applications."""
    with _lock:
        found = _shared.get(name)
        if found is None or found.process != os.getpid():
            found = _shared[name] = LoopThread(name)
        return found


def is_of_thread(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether a loop belongs to one of this process's loop threads."""
    return any(found.loop is loop and found.process == os.getpid() for found in [*_shared.values()])


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the loop factory: uvloop's where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop  # works as well
    return new_event_loop


def run(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, of which a forked child runs nothing to the end."""
    process = os.getpid()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(main)
        except BaseException as error:
            end_if_forked(process, error)
            raise
