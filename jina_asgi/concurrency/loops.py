"""Event loops: which one our processes and threads run, and loops in daemon threads.

The threads are for what has to wait for coroutines without a loop of its own. Two a process: one for all synchronous
Clients, one for all applications that no lifespan reaches and for WSGI. Each begins with its first use, in each process
anew: a thread does not survive a fork. Coroutines of many threads run there beside each other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

from jina_asgi.concurrency.forks import end_if_forked

T = TypeVar("T")

logger = logging.getLogger("jina_asgi")


class LoopThread:
    """A loop and its thread, which last as long as the process."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"jina-asgi-{name}", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether the caller runs there, and so must not wait for what runs there."""
        return threading.current_thread() is self._thread

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine there, with the caller's contextvars."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine there that the caller will wait for."""
        if self.is_here:
            work.close()
            raise RuntimeError("a synchronous Client cannot wait on its own event loop; use Client(asyncio=True) here")
        return self.begin(work)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; being interrupted cancels it."""
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
            except (SystemExit, KeyboardInterrupt) as error:  # one coroutine's, which is told; others still wait
                end_if_forked(self.process, error)
                logger.exception("a coroutine asked to end the process, from a thread that cannot")


_lock = threading.Lock()
_shared: dict[str, LoopThread] = {}


def loop_thread(name: Literal["client", "loop"]) -> LoopThread:
    """This process's loop for Clients, or the one for applications."""
    with _lock:
        found = _shared.get(name)
        if found is None or found.process != os.getpid():
            found = _shared[name] = LoopThread(name)
        return found


def is_of_thread(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether this is the loop of one of this process's own threads."""
    return any(found.loop is loop and found.process == os.getpid() for found in [*_shared.values()])


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes such a loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop  # as good
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
