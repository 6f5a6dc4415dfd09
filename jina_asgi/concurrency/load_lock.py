"""Executors of one process are made one after another.

transformers and others change torch's globals (its default dtype and device, how modules are made) while they read a
model, and what is read beside them comes out wrong. A turn that was given up holds nobody up.
"""

from __future__ import annotations

import threading
from types import TracebackType

_one = threading.Semaphore(1)
_mine = threading.local()


def is_making() -> bool:
    """Whether this thread is making an Executor just now."""
    return getattr(_mine, "depth", 0) > 0


class Turn:
    """One Executor's: `with` waits for those before it. One that is made while another is, is part of that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has = self._is_over = False

    def __enter__(self) -> None:
        _mine.depth = getattr(_mine, "depth", 0) + 1
        if _mine.depth > 1:
            return
        _one.acquire()
        with self._lock:
            self._has, given_up = True, self._is_over
        if given_up:  # while it waited
            self.over()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _mine.depth -= 1
        if not _mine.depth:
            self.over()

    def over(self) -> None:
        """Let the next one begin, from any thread; again does nothing."""
        with self._lock:
            self._is_over, has, self._has = True, self._has, False
        if has:
            _one.release()
