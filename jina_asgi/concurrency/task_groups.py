"""Several Runners' lives, begun together and ended in reverse; several pieces of work, of which the first error ends all.

An error leaves as itself, never in a group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from jina_asgi.concurrency.grace import grace_counted, grace_until
from jina_asgi.concurrency.tasks import begun, ended, finished, seen
from jina_asgi.errors import JinaASGIError
from jina_asgi.errors._raised import is_ours
from jina_asgi.types import Runner

T = TypeVar("T")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; the first error cancels the others and is raised once they have ended."""
    tasks = [begun(work, seen) for work in works]
    try:
        while not all(task.done() for task in tasks):
            await asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            raise_first(tasks)
        return [task.result() for task in tasks]
    finally:
        await finished(tasks)
        tasks.clear()  # an error's traceback holds this frame


class Tasks:
    """Work that runs side by side, watched by one task: `asyncio.wait` sets itself up anew for each of them."""

    __slots__ = ("_all", "_watched", "left")

    def __init__(self) -> None:
        self._all: list[asyncio.Task[Any]] = []
        self._watched: asyncio.Future[None] | None = None
        #: How many still run.
        self.left = 0

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin some."""
        self._all.append(begun(work, self._done))
        self.left += 1

    async def some(self) -> None:
        """Wait until one more has ended.

        Raises:
            The error of the first that has one.
        """
        self._watched = asyncio.get_running_loop().create_future()
        await self._watched
        raise_first(self._all)

    async def end(self) -> None:
        """Cancel what still runs, and wait for its end."""
        try:
            if self.left:
                await finished(self._all)
        finally:
            self._all.clear()  # an error's traceback holds a frame that names this

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.left -= 1
        seen(task)
        if self._watched is not None and not self._watched.done():
            self._watched.set_result(None)


def raise_first(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Raise the error of the first of these tasks that has ended with one."""
    failed = next((task for task in tasks if task.done() and (task.cancelled() or task.exception())), None)
    if failed is not None:
        try:
            failed.result()
        finally:
            del failed  # the error's traceback holds this frame


@asynccontextmanager
async def lives(
    runners: Mapping[str, Runner], drained: Callable[[bool], Coroutine[Any, Any, bool]]
) -> AsyncIterator[None]:
    """Begin the lives of all at once, and end them one after another, the last one first.

    Args:
        runners: by name.
        drained: awaited before they end, told whether somebody is in a hurry; answers whether nothing runs any more.
            Where something does, no Runner gets a grace period of its own.

    Raises:
        What a Runner raises that fails to begin, with its name; the others are ended before.
    """
    begun = [_Life(name, runner) for name, runner in runners.items()]
    try:
        await together(life.begin() for life in begun)
    except BaseException:
        await _end(begun, hurried=True)
        raise
    hurried = False
    try:
        yield
    except asyncio.CancelledError:
        hurried = True
        raise
    finally:
        try:
            hurried = not await drained(hurried) or hurried
        except asyncio.CancelledError:
            hurried = True
            raise
        finally:
            await _end(begun, hurried=hurried)


async def _end(begun: Sequence[_Life], *, hurried: bool) -> None:
    errors: list[BaseException] = []
    for life in reversed(begun):
        try:
            await life.end(hurried=hurried)
        except asyncio.CancelledError as error:
            hurried = True
            errors.append(error)
        except Exception as error:  # noqa: BLE001  # the others end too; then it is raised
            errors.append(error)
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # their tracebacks hold this frame


class _Life:
    """One Runner's lifespan, in a task of its own: it is entered and left in the same one."""

    def __init__(self, name: str, runner: Runner) -> None:
        self._name, self._runner = name, runner
        self._ready, self._stop = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loaded = False
        self._grace_until: float | None = None  # as whoever ends this counts it

    async def begin(self) -> None:
        """Load.

        Raises:
            What loading raises.
        """
        task = self._task = begun(self._live(), lambda _: self._ready.set(), name=f"jina-asgi-{self._name}")
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
                    ending.enter_context(grace_counted(self._grace_until))
        except Exception as error:
            named(error, self._name)
            raise

    async def end(self, *, hurried: bool) -> None:
        """Unload, and wait for it; being cancelled meanwhile hurries it."""
        task, self._task = self._task, None
        if task is None:
            return
        self._grace_until = grace_until()
        self._stop.set()
        if hurried:
            task.cancel()
        interrupted = await ended([task], hurry=task.cancel)
        try:
            if interrupted is not None:
                raise interrupted
            if not task.cancelled() and not (hurried and not self._loaded):
                task.result()
        finally:
            del interrupted, task  # the errors' tracebacks hold this frame


def named(error: BaseException, name: str) -> None:
    """Say in an error which node it comes from; a node within a node is named with both."""
    if not is_ours(error):
        with suppress(BaseException):  # its own notes may raise anything
            BaseException.add_note(error, f"in the node {name!r}")
    elif isinstance(error, JinaASGIError) and error.node != name and not error.node.startswith(f"{name}/"):
        error.node = f"{name}/{error.node}" if error.node else name
        error.add_note(f"in the node {name!r}")
