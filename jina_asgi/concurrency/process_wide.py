"""What a process has once: the objects frozen for the garbage collector, the lock of loading, and the guard of forks.

Keeps a child that a user's code forks from coming back into ours.

There it would be a second process on the same connections, the same event loop's files and the same process group.

Freezes loaded objects for the garbage collector while a Deployment is served.

A full collection looks at every object of the process, and nothing is answered meanwhile: 80 ms with docarray alone,
more with a model's libraries. Frozen objects are skipped; objects that requests create are still collected.

Serializes the loading of Executors in one process.

transformers and others change torch's globals (its default dtype and device, how modules are made) while they load a
model, and a model that loads concurrently comes out wrong. A lock whose owner gave up does not block the others.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NoReturn

from jina_asgi.errors._raised import loggable, raised_from

logger = logging.getLogger("jina_asgi")


#: The id of this process; kept, as each call compares it, and to ask the kernel takes a hundredth of a call.
_process = os.getpid()


class ProcessLock:
    """A lock for threads of one process. It is free in a forked child, where a thread that held it does not exist."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Make it free."""
        self._lock = threading.Lock()


_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _forked() -> None:
    global _process, _semaphore
    _process = os.getpid()
    for lock in _locks:
        lock.renew()
    if not is_making():
        _semaphore = threading.Semaphore(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


def end_if_forked(process: int, error: BaseException | None = None) -> None:
    """End this process at once where it is not `process`, but a child that the code which has just returned forked.

    No other cleaning up runs: what is open is the parent's. The exit code is that of a SystemExit which `error` is, or
    came from, else 1, and the log has what was returned or raised.

    Args:
        process: the pid from before that code was called.
        error: what it raised; None where it returned.
    """
    if process != _process:
        _end(error)


def _end(error: BaseException | None) -> NoReturn:
    code = 1
    with suppress(BaseException):  # whatever a user's log handlers and streams raise: the child must not go on
        if error is None:
            logger.error(
                "a child process that an Executor forked returned from its method; expected os._exit in the child"
            )
        elif (exiting := raised_from(error, SystemExit)) is not None:
            code = _code(exiting)
        else:
            logger.error("a child process that an Executor forked failed", exc_info=loggable(error))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code)


def _code(exiting: SystemExit) -> int:
    if exiting.code is None:
        return 0
    if isinstance(exiting.code, int):
        return exiting.code & 0xFF
    sys.stderr.write(f"{exiting.code}\n")  # as Python does
    return 1


_lock = ProcessLock()
_serving = 0
_frozen_by_host = False
_collected = False


@contextmanager
def frozen() -> Iterator[None]:
    """Freeze all live objects until the last concurrent user leaves; the first use in a process collects before.

    Objects that the host froze before the first of these users came stay frozen.
    """
    global _serving, _frozen_by_host, _collected
    with _lock:
        if not _serving:
            _frozen_by_host = bool(gc.get_freeze_count())
        if not _collected:
            gc.collect()
            _collected = True
        _serving += 1
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _serving -= 1
            if not _serving and not _frozen_by_host:
                gc.unfreeze()


def collect_dropped() -> None:
    """Collect frozen objects that were dropped since, such as a whole application; do nothing where none are frozen."""
    with _lock:
        if _serving and not _frozen_by_host:
            gc.unfreeze()
            gc.collect()
            gc.freeze()


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
