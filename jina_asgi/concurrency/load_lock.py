"""Serializes the loading of Executors in one process.

transformers and others change torch's globals (its default dtype and device, how modules are made) while they load a
model, and a model that loads concurrently comes out wrong. A lock whose owner gave up does not block the others.
"""

from __future__ import annotations

import threading
from types import TracebackType

_semaphore = threading.Semaphore(1)
_this_thread = threading.local()


def is_making() -> bool:
    """Whether this thread is loading an Executor now."""
    return getattr(_this_thread, "depth", 0) > 0


class LoadLock:
    """The loading of one Executor: `with` waits for earlier ones. Nested loading in the same thread does not wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has = self._is_over = False

    def __enter__(self) -> None:
        _this_thread.depth = getattr(_this_thread, "depth", 0) + 1
        if _this_thread.depth > 1:
            return
        _semaphore.acquire()
        with self._lock:
            self._has, given_up = True, self._is_over
        if given_up:  # released while it waited
            self.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _this_thread.depth -= 1
        if not _this_thread.depth:
            self.release()

    def release(self) -> None:
        """Let the next Executor load; callable from any thread, and more than once."""
        with self._lock:
            self._is_over, has, self._has = True, self._has, False
        if has:
            _semaphore.release()
