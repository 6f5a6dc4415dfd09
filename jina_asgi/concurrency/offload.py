"""Large requests are read beside the event loop, and large answers written there: 60 MB can take seconds, in which no
other call would be answered.

That holds for what Python does. What C does at one go, such as to parse JSON, lets no other thread run until it is done.
"""

from __future__ import annotations

import asyncio
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
from jina_asgi.errors._raised import carried, loggable

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("jina_asgi")

#: The names of the threads.
_READS, _DISK = "jina-asgi-reads", "jina-asgi-uploads"
#: What is to be read, for which future of which loop, in whose context; empty once it was given up, so that nothing of it
#: is kept until its turn comes. Without a future nobody waits.
_Given = list[tuple[asyncio.AbstractEventLoop | None, asyncio.Future[Any] | None, Context, Callable[[], Any]]]
#: Bytes from which on a request is large, whatever is in it. A small one may hold many values: `protocols.size_guard`.
LARGE = 2**20


async def parse_in_thread(until: float | None, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Read something large in this process's one thread for that, after those that came before.

    Args, and raises: as `_awaited`.
    """
    return await _awaited(_READS, until, partial(read, *args, **kwargs))


async def on_disk(until: float | None, write: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what may wait for a disk in this process's one thread for that: large JSON need not wait for it.

    Args, and raises: as `_awaited`.
    """
    return await _awaited(_DISK, until, partial(write, *args, **kwargs))


def in_background(work: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Do what may wait for a disk in the thread for that; nobody waits for it. What it raises is logged."""
    _queue(os.getpid(), _DISK).put([(None, None, copy_context(), partial(work, *args, **kwargs))])


async def _awaited(thread: str, until: float | None, read: Callable[[], T]) -> T:
    """What a function returns that runs in the thread of this name.

    Args:
        until: the moment until which an answer is awaited, on `time.monotonic`'s clock.
        read: runs in the caller's contextvars, of which it sees a copy.

    Raises:
        DeadlineExceeded: that moment has passed. RuntimeError: `read` raised what ends threads or iterations.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    given: _Given = [(loop, future, copy_context(), read)]
    _queue(os.getpid(), thread).put(given)
    try:
        async with asyncio.timeout(None if until is None else until - time.monotonic()) as limit:
            return await future
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the deadline of this call passed before it was read") from None
    finally:
        given.clear()


@lru_cache(maxsize=2)
def _queue(_process: int, thread: str) -> SimpleQueue[_Given]:
    """What is to be done by a thread of this process: a fork leaves the thread behind."""
    queue: SimpleQueue[_Given] = SimpleQueue()
    threading.Thread(target=_read, args=(queue,), name=thread, daemon=True).start()
    return queue


def _read(queue: SimpleQueue[_Given]) -> None:
    while True:
        _read_one(queue.get())


def _read_one(given: _Given) -> None:
    result, error = None, None
    try:
        loop, future, context, read = given.pop()
    except IndexError:
        return  # it was given up
    try:
        result = context.run(read)
    except BaseException as raised:  # noqa: BLE001  # whoever waits is told of it, whatever it is
        error = carried(raised)
    if loop is None or future is None:
        if error is not None:
            logger.error("what nobody waits for has failed", exc_info=loggable(error))
        return
    with suppress(RuntimeError):  # that loop is closed, and nobody waits
        loop.call_soon_threadsafe(_tell, future, result, error)


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
