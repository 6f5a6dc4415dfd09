"""Runs several lifespans or coroutines together: the first error cancels the rest.

Errors are raised bare, never in an ExceptionGroup.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from jina_asgi.concurrency.lifecycle import Lifecycle, grace_deadline, grace_period
from jina_asgi.concurrency.tasks import cancel_and_wait, is_cancel, mark_retrieved, start_task, wait_until_done
from jina_asgi.errors import JinaASGIError
from jina_asgi.errors._raised import is_ours, raise_sanitized
from jina_asgi.types import Runner

T = TypeVar("T")


async def gather_or_cancel(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results in order; the first error cancels the others and is raised once they have ended."""
    tasks = [start_task(work, mark_retrieved) for work in works]
    try:
        while not all(task.done() for task in tasks):
            await asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            raise_first(tasks)
        return [task.result() for task in tasks]
    finally:
        await cancel_and_wait(tasks)
        tasks.clear()  # an error's traceback holds this frame


class TaskSet:
    """Concurrent tasks with one waiter; cheaper than `asyncio.wait`, which adds callbacks at every call."""

    __slots__ = ("_all", "_watched", "left")

    def __init__(self) -> None:
        self._all: list[asyncio.Task[Any]] = []
        self._watched: asyncio.Future[None] | None = None
        #: The number of tasks that still run.
        self.left = 0

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start a task."""
        self._all.append(start_task(work, self._done))
        self.left += 1

    async def some(self) -> None:
        """Wait until one more task has ended.

        Raises:
            The error of the first task that failed.
        """
        self._watched = asyncio.get_running_loop().create_future()
        await self._watched
        raise_first(self._all)

    async def end(self) -> None:
        """Cancel the tasks that still run and wait until they have ended."""
        try:
            if self.left:
                await cancel_and_wait(self._all)
        finally:
            self._all.clear()  # an error's traceback holds a frame that names this

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.left -= 1
        mark_retrieved(task)
        if self._watched is not None and not self._watched.done():
            self._watched.set_result(None)


def raise_first(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Raise the error of the first of these tasks that failed, if any."""
    failed = next((task for task in tasks if task.done() and (task.cancelled() or task.exception())), None)
    if failed is not None:
        try:
            failed.result()
        finally:
            del failed  # the error's traceback holds this frame


@asynccontextmanager
async def lifespans(
    life: Lifecycle, runners: Mapping[str, Runner], drained: Callable[[], Coroutine[Any, Any, bool]]
) -> AsyncIterator[None]:
    """Enter the lifespans of all Runners concurrently, and exit them one after another in reverse order.

    Args:
        life: of the Runner that is made of these.
        runners: by name.
        drained: awaited before the exit; returns whether all calls have ended. If not, no Runner gets a grace period of
            its own.

    Raises:
        The error of a Runner that fails to load, with its name; the others are exited first.
    """
    begun = [_Lifespan(name, runner) for name, runner in runners.items()]

    async def end() -> None:
        hurried = not await drained()
        await _end_all(begun, hurried=hurried or life.is_hurried)

    with life.running():
        try:
            await gather_or_cancel(one.begin() for one in begun)
        except BaseException:
            await _end_all(begun, hurried=True)
            raise
        async with life.ending(end):
            yield


async def _end_all(begun: Sequence[_Lifespan], *, hurried: bool) -> None:
    errors: list[BaseException] = []
    for life in reversed(begun):
        try:
            await life.end(hurried=hurried)
        except asyncio.CancelledError as error:
            hurried = True
            errors.append(error)
        except Exception as error:  # noqa: BLE001  # raised once the others have ended
            errors.append(error)
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # their tracebacks hold this frame


class _Lifespan:
    """One Runner's lifespan in its own task, since it must be entered and exited in the same task."""

    def __init__(self, name: str, runner: Runner) -> None:
        self._name, self._runner = name, runner
        self._ready, self._stop = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loaded = False
        self._grace_until: float | None = None  # of the task that ends this

    async def begin(self) -> None:
        """Load.

        Raises:
            What loading raises.
        """
        task = self._task = start_task(self._live(), lambda _: self._ready.set(), name=f"jina-asgi-{self._name}")
        try:
            await self._ready.wait()
            if task.done():
                task.result()
        finally:
            del task  # its error's traceback holds this frame

    async def _live(self) -> None:
        try:
            with ExitStack() as ending:
                async with self._runner.lifespan():
                    self._loaded = True
                    self._ready.set()
                    await self._stop.wait()
                    ending.enter_context(grace_period(self._grace_until))
        except Exception as error:
            add_node_name(error, self._name)
            raise

    async def end(self, *, hurried: bool) -> None:
        """Unload and wait for it; a cancellation meanwhile makes it hurry."""
        task, self._task = self._task, None
        if task is None:
            return
        self._grace_until = grace_deadline()
        self._stop.set()
        if hurried:
            task.cancel()
        interrupted = await wait_until_done([task], hurry=task.cancel)
        try:
            if interrupted is not None:
                raise interrupted
            if not task.cancelled() and not (hurried and not self._loaded):
                task.result()
        finally:
            del interrupted, task  # the errors' tracebacks hold this frame


def add_node_name(error: BaseException, name: str) -> None:
    """Add the node's name to an error; nested nodes are named 'outer/inner'."""
    if not is_ours(error):
        with suppress(BaseException):  # a user's `__notes__` may raise
            BaseException.add_note(error, f"in the node {name!r}")
    elif isinstance(error, JinaASGIError) and error.node != name and not error.node.startswith(f"{name}/"):
        error.node = f"{name}/{error.node}" if error.node else name
        error.add_note(f"in the node {name!r}")


def is_async(function: Any) -> bool:
    """Whether calling it returns a coroutine or an async generator; takes functions, methods, partials and callables."""
    while isinstance(function, functools.partial):
        function = function.func
    candidates = (function, getattr(type(function), "__call__", None))  # noqa: B004  # inspected, not called
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in candidates)


def is_generator(function: Any) -> bool:
    """Whether it is a generator function, whose body does not run when it is called."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


async def maybe_await(value: Any) -> Any:
    """Return the value of a user's function, awaited if it is awaitable.

    Raises:
        RuntimeError: in place of an exception that would end the loop.
    """
    try:
        return await value if inspect.isawaitable(value) else value
    except BaseException as error:
        if is_cancel(error):
            raise
        raise_sanitized(error)


def as_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return an async function as it is, and a sync one as an async function that runs in a thread."""
    if is_async(function):
        return function

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:  # noqa: BLE001
            raise_sanitized(error)

    @functools.wraps(function, updated=())
    async def in_thread(*arguments: Any) -> Any:
        return await maybe_await(await asyncio.to_thread(call, *arguments))

    return in_thread
