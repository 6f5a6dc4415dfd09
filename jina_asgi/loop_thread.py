"""One event loop in a daemon thread, shared by all that has to wait for coroutines without a loop of its own.

It begins with the first use, in each process anew: a thread does not survive a fork. Coroutines of many threads run
there beside each other.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """The loop and its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="jina-asgi-client", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine there."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a synchronous Client cannot wait on its own event loop; use Client(asyncio=True) here")
        return asyncio.run_coroutine_threadsafe(work, self.loop)

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
        self.loop.run_forever()


_lock = threading.Lock()
_shared: list[LoopThread] = []


def loop_thread() -> LoopThread:
    """This process's loop."""
    with _lock:
        if not _shared or _shared[0].process != os.getpid():
            _shared[:] = [LoopThread()]
        return _shared[0]
