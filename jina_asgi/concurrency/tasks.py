"""Starts tasks with a completion callback, bounds their lifetime, and times out without counting pauses of the process.

A task that is cancelled before its first step runs no line of its coroutine, and so no `finally` in it. Cleanup is
therefore a callback, given where the task starts, that runs however the task ends. Every task of this package starts
here.

Timeouts that do not count time in which this process itself was paused.

After a pause of the machine or a blocked loop every deadline has passed before the peers, paused as well, could answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar

from jina_asgi.errors._raised import is_a, loggable

T = TypeVar("T")

logger = logging.getLogger("jina_asgi")

OnDone = Callable[[asyncio.Task[Any]], object]


def start_task(
    work: Coroutine[Any, Any, T],
    on_done: OnDone,
    *,
    kept: set[asyncio.Task[T]] | None = None,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """Start a task that runs `work`.

    Args:
        work: the coroutine.
        on_done: called once with the ended task: completed, failed or cancelled, maybe before its first step. It must
            resolve futures and release resources that depend on the task.
        kept: a set that references the task until then; the event loop holds only weak references.
        name, context: as of `asyncio.create_task`.
    """
    task = asyncio.get_running_loop().create_task(work, name=name, context=context)
    if kept is not None:
        kept.add(task)
        task.add_done_callback(kept.discard)
    task.add_done_callback(on_done)
    return task


def log_failure(what: str) -> OnDone:
    """Return a callback that logs the task's error as "`what` failed"."""

    def log(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", what, exc_info=loggable(error))

    return log


def mark_retrieved(task: asyncio.Task[Any]) -> None:
    """Mark a task's error as retrieved, for tasks whose starter reads the result unless it leaves first."""
    if not task.cancelled():
        task.exception()  # else asyncio logs that it was never retrieved


@asynccontextmanager
async def concurrent_tasks(*works: Coroutine[Any, Any, Any]) -> AsyncIterator[tuple[asyncio.Task[Any], ...]]:
    """Run tasks while the block runs; on leaving it, cancel those that still run and wait for them."""
    tasks = tuple(start_task(work, mark_retrieved) for work in works)
    try:
        yield tasks
    finally:
        await cancel_and_wait(tasks)


async def wait_for_first(*works: Coroutine[Any, Any, Any]) -> None:
    """Run works until one has ended; cancel the others and wait for them. Their errors are not raised."""
    async with concurrent_tasks(*works) as tasks:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def cancel_and_wait(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks that still run and wait until all have ended; a cancellation meanwhile is raised afterwards.

    The tasks' own errors are not raised.
    """
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    interrupted = await wait_until_done(left)
    for task in tasks:
        mark_retrieved(task)
    try:
        if interrupted is not None:
            raise interrupted
    finally:
        del interrupted  # its traceback holds this frame


async def wait_until_done(
    tasks: Collection[asyncio.Future[Any]], *, hurry: Callable[[], object] = lambda: None
) -> asyncio.CancelledError | None:
    """Wait until all are done, even if cancelled meanwhile; return the last cancellation for the caller to raise.

    `hurry` is called at each cancellation.
    """
    interrupted: asyncio.CancelledError | None = None
    try:
        while left := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError as error:
                interrupted = error
                hurry()
        return interrupted
    finally:
        del interrupted  # its traceback holds this frame


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, even if cancelled meanwhile; a cancellation is raised afterwards.

    Raises:
        The error of `work`, if this was not cancelled.
    """
    task = start_task(work, mark_retrieved)
    interrupted = await wait_until_done([task])
    try:
        if interrupted is not None:
            raise interrupted
        return task.result()
    finally:
        del interrupted, task  # the errors' tracebacks hold this frame


def cancel_requests() -> int:
    """Return the current task's number of pending cancel requests; 0 outside of a task.

    A function of its own, so that no coroutine's frame references its own task: the task references its error, the
    error's traceback the frame, and that cycle would keep the whole call until a full garbage collection.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_cancel(error: BaseException) -> bool:
    """Whether an error is the cancellation of the current task, not a CancelledError that user code raised."""
    return is_a(error, asyncio.CancelledError) and cancel_requests() > 0


def uncancel() -> None:
    """Take back one cancel request of the current task, which goes on."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


_PARTS = 8  # slices of a timeout, waited for one after the other
_FORGIVEN = 4 * _PARTS  # slices that may take far longer than they should


async def any_done(works: Collection[asyncio.Future[Any]], seconds: float) -> bool:
    """Wait until one future is done, for at most so many seconds of running time; return whether one is."""
    loop = asyncio.get_running_loop()
    part, left, forgiven = seconds / _PARTS, _PARTS, 0
    while left:
        began = loop.time()
        done, _ = await asyncio.wait(works, timeout=part, return_when=asyncio.FIRST_COMPLETED)
        if done:
            return True
        if loop.time() - began < 2 * part or forgiven >= _FORGIVEN:
            left -= 1
        else:
            forgiven += 1
    return False
