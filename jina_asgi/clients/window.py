"""Limits how many requests are open: at most `ahead` at the same time, and inputs are not read further.

There are two versions: for a thread whose requests run on another thread's event loop, and for a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from jina_asgi.concurrency.tasks import cancel_and_wait, start_task

B = TypeVar("B")
T = TypeVar("T")


def answers(
    batches: Iterator[B], submit: Callable[[B], Future[T]], *, ahead: int, in_order: bool
) -> Generator[T, None, None]:
    """Yields the answers to batches, as they come or in the batches' order; closing it cancels the open requests.

    An answer that has arrived is yielded before the next batch is read.
    """
    opened: dict[Future[T], None] = {}
    done: SimpleQueue[Future[T]] = SimpleQueue()

    def next_one(wait: bool) -> Future[T] | None:
        if in_order:
            first = next(iter(opened))
            return first if wait or first.done() else None
        return done.get() if wait or not done.empty() else None

    try:
        for batch in batches:
            future = submit(batch)
            opened[future] = None
            if not in_order:
                future.add_done_callback(done.put)
            while opened and (answered := next_one(wait=len(opened) >= ahead)) is not None:
                yield answered.result()
                del opened[answered]
        while opened:
            answered = next_one(wait=True)
            assert answered is not None
            yield answered.result()
            del opened[answered]
    finally:
        for future in opened:
            future.cancel()


async def async_answers(
    batches: AsyncGenerator[B, None],
    ask: Callable[[B], Coroutine[Any, Any, T]],
    *,
    ahead: int,
    in_order: bool,
) -> AsyncGenerator[T, None]:
    """As `answers`. The next batch is read while answers are awaited; closing this closes `batches`."""
    opened: dict[asyncio.Task[T], None] = {}
    events: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    reading: asyncio.Task[Any] | None = None
    is_read = False

    def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return start_task(work, events.put_nowait)

    try:
        while True:
            if reading is None and not is_read and len(opened) < ahead:
                reading = begin(_next(batches))
            if reading is None and not opened:
                return
            event = await events.get()
            if event is reading:
                reading, batch = None, event.result()
                is_read = batch is None
                if batch is not None:
                    opened[begin(ask(batch))] = None
                continue
            for task in _ready(opened, event, in_order):
                yield task.result()
                del opened[task]
    finally:
        try:
            await cancel_and_wait([*opened, *([] if reading is None else [reading])])
        finally:
            await batches.aclose()


def _ready(opened: dict[asyncio.Task[T], None], event: asyncio.Task[T], in_order: bool) -> list[asyncio.Task[T]]:
    """The answers that can be yielded after `event` has finished."""
    if not in_order:
        return [event]
    ready = []
    for task in opened:
        if not task.done():
            break
        ready.append(task)
    return ready


async def _next(batches: AsyncGenerator[B, None]) -> B | None:
    return await anext(batches, None)
