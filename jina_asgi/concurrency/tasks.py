"""Tasks whose end is always dealt with, and scopes that tasks do not outlive.

A task that is cancelled before its first step runs no line of its coroutine, and so no `finally` in it. What must be done
when a task is over is therefore given where it begins, and a callback does it, however the task ends. Every task of this
package begins here.
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

Over = Callable[[asyncio.Task[Any]], object]


def begun(
    work: Coroutine[Any, Any, T],
    over: Over,
    *,
    kept: set[asyncio.Task[T]] | None = None,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """A task that runs `work`.

    Args:
        work: what it runs.
        over: called once with the task when it has ended: by itself, by an error, or cancelled, maybe before its first
            step. Whatever others wait for, or must get back, is settled there.
        kept: where the task is held until then; the event loop itself holds none.
        name, context: as of `asyncio.create_task`.
    """
    task = asyncio.get_running_loop().create_task(work, name=name, context=context)
    if kept is not None:
        kept.add(task)
        task.add_done_callback(kept.discard)
    task.add_done_callback(over)
    return task


def logged(what: str) -> Over:
    """For a task whose end settles nothing: an error that it ends with is logged, as that of `what`."""

    def over(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", what, exc_info=loggable(error))

    return over


def seen(task: asyncio.Task[Any]) -> None:
    """For a task whose result, or error, is read by the one who began it, unless that one leaves before."""
    if not task.cancelled():
        task.exception()  # else asyncio logs that it was never retrieved


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, Any]) -> AsyncIterator[tuple[asyncio.Task[Any], ...]]:
    """Tasks that run while the block does; at its end those that still run are cancelled, and have ended."""
    tasks = tuple(begun(work, seen) for work in works)
    try:
        yield tasks
    finally:
        await finished(tasks)


async def finished(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel those that still run and wait until all have ended; being cancelled meanwhile is raised afterwards.

    What they raise is not raised here.
    """
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    interrupted = await ended(left)
    for task in tasks:
        seen(task)
    try:
        if interrupted is not None:
            raise interrupted
    finally:
        del interrupted  # its traceback holds this frame


async def ended(
    tasks: Collection[asyncio.Future[Any]], *, hurry: Callable[[], object] = lambda: None
) -> asyncio.CancelledError | None:
    """Wait until these are done, however often this is cancelled meanwhile; the last cancelling, for the caller to raise.

    `hurry` is called at each of them.
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


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, however often this is cancelled meanwhile; that is raised afterwards.

    Raises:
        Whatever `work` raises, where this is not cancelled.
    """
    task = begun(work, seen)
    interrupted = await ended([task])
    try:
        if interrupted is not None:
            raise interrupted
        return task.result()
    finally:
        del interrupted, task  # the errors' tracebacks hold this frame


def cancel_requests() -> int:
    """How often the current task was asked to cancel, less how often that was taken back; 0 outside of a task.

    Asked here, so that no coroutine's frame names its own task: the task holds the error that ended it, the error's
    traceback holds the frame, and such a cycle keeps the whole call until a full garbage collection.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_cancel(error: BaseException) -> bool:
    """Whether an error is the cancelling of the current task, and none that a user's code raised by itself."""
    return is_a(error, asyncio.CancelledError) and cancel_requests() > 0


def uncancel() -> None:
    """Take back one such request, in a task that goes on."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
