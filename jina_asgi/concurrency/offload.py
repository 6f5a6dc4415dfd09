"""Decodes large requests and encodes large answers in a thread: 60 MB can take seconds, which would block the event loop.

This helps for Python code. A single C call that keeps the GIL, such as parsing JSON, still blocks other threads.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from jina_asgi.errors import DeadlineExceeded
from jina_asgi.errors._raised import future_safe, loggable

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("jina_asgi")

#: The names of the threads.
_READS, _DISK = "jina-asgi-reads", "jina-asgi-uploads"
#: A loop, its future, the caller's context and the work; emptied when its caller leaves, so that the queue keeps no
#: reference to the request. The loop and future are None for background work.
_Job = list[tuple[asyncio.AbstractEventLoop | None, asyncio.Future[Any] | None, Context, Callable[[], Any]]]
#: Size in bytes from which a request is large. A smaller one may still hold many values: see `protocols.size_guard`.
LARGE = 2**20
_NEVER = 2**30  # searches of young objects after which a full one follows


async def parse_in_thread(until: float | None, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Decode or encode something large in this process's codec thread, in order of arrival.

    Args, and raises: as `_run_in_thread`.
    """
    return await _run_in_thread(_READS, until, partial(_without_full_collections, partial(read, *args, **kwargs)))


async def parse_if(heavy: bool, until: float | None, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `parse_in_thread` if it is `heavy`, else here."""
    return await parse_in_thread(until, read, *args, **kwargs) if heavy else read(*args, **kwargs)


async def run_in_disk_thread(until: float | None, write: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work that may block on a disk in this process's disk thread, separate from the codec thread.

    Args, and raises: as `_run_in_thread`.
    """
    return await _run_in_thread(_DISK, until, partial(write, *args, **kwargs))


def run_in_background(work: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Run work that may block on a disk in the disk thread without waiting for it; errors are logged."""
    _queue(os.getpid(), _DISK).put([(None, None, copy_context(), partial(work, *args, **kwargs))])


async def _run_in_thread(thread: str, until: float | None, read: Callable[[], T]) -> T:
    """Run a function in the thread of this name and return its result.

    Args:
        thread: the thread's name.
        until: the deadline, on `time.monotonic`'s clock; None: no deadline.
        read: runs in a copy of the caller's contextvars.

    Raises:
        DeadlineExceeded: the deadline passed. RuntimeError: `read` raised SystemExit or StopIteration.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    job: _Job = [(loop, future, copy_context(), read)]
    _queue(os.getpid(), thread).put(job)
    try:
        async with asyncio.timeout(None if until is None else until - time.monotonic()) as limit:
            return await future
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the deadline of this call passed before it was read") from None
    finally:
        job.clear()


def _without_full_collections(read: Callable[[], T]) -> T:
    """Run work of the codec thread, meanwhile only young objects are searched for garbage.

    A full search looks at the hundreds of thousands of objects that the work has created so far, keeps other threads
    waiting, and comes again for each quarter more of them.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*thresholds[:2], _NEVER)
    try:
        return read()
    finally:
        if gc.get_threshold() == (*thresholds[:2], _NEVER):  # else other code has set it meanwhile
            gc.set_threshold(*thresholds)


@lru_cache(maxsize=2)
def _queue(_process: int, thread: str) -> SimpleQueue[_Job]:
    """Return the queue of a thread, started anew in each process, as threads do not survive a fork."""
    queue: SimpleQueue[_Job] = SimpleQueue()
    threading.Thread(target=_work, args=(queue,), name=thread, daemon=True).start()
    return queue


def _work(queue: SimpleQueue[_Job]) -> None:
    while True:
        _run_one(queue.get())


def _run_one(job: _Job) -> None:
    result, error = None, None
    try:
        loop, future, context, read = job.pop()
    except IndexError:
        return  # its caller has left
    try:
        result = context.run(read)
    except BaseException as raised:  # noqa: BLE001  # any error reaches the caller
        error = future_safe(raised)
    if loop is None or future is None:
        if error is not None:
            logger.error("background work failed", exc_info=loggable(error))
        return
    with suppress(RuntimeError):  # the loop is closed: no caller waits
        loop.call_soon_threadsafe(_set_outcome, future, result, error)


def _set_outcome(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
