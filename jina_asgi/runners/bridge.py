"""One Runner for several users: calls from any event loop, and one lifespan for all who mount it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from jina_asgi.concurrency.lifecycle import CLOSING, SharedLifespan, grace_period
from jina_asgi.concurrency.tasks import start_task, wait_until_done
from jina_asgi.errors import DefinitionError, interrupted_error
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner

logger = logging.getLogger("jina_asgi")


class SharedRunner(Wrapper):
    """The first user to enter loads, the last to leave unloads. All must be on one event loop.

    Args:
        inner: the Runner that answers.
        name: for the log.
        grace: seconds that running calls get when serving ends, in total for all Runners within. `CLOSING` seconds
            later, what still runs is abandoned.
    """

    def __init__(self, inner: Runner, name: str = "a Runner", *, grace: float = 30.0) -> None:
        super().__init__(inner)
        self._name, self._grace = name, grace
        self._shared = SharedLifespan()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Share the lifespan of the inner Runner.

        Raises:
            DefinitionError: it is served on another event loop.
        """
        if self._shared.is_elsewhere:
            raise DefinitionError("this Deployment is served on another event loop; give each a Deployment of its own")
        async with self._shared.entered(self._lived):
            yield

    @asynccontextmanager
    async def _lived(self) -> AsyncIterator[None]:
        life = self.inner.lifespan()
        await life.__aenter__()
        try:
            yield
        finally:
            await self._end(life)

    async def _end(self, life: AbstractAsyncContextManager[None]) -> None:
        """End the inner lifespan with the error that this one ends with. No frame of that error's traceback may name it."""
        limit = asyncio.timeout(self._grace + CLOSING)
        try:
            with grace_period(time.monotonic() + self._grace):
                async with limit:
                    await life.__aexit__(*sys.exc_info())
        except TimeoutError:
            if not limit.expired():
                raise
            logger.error(
                "%s did not end within %g s and the grace period of %g s; its remaining work is abandoned",
                self._name,
                CLOSING,
                self._grace,
            )
        finally:
            del limit  # it holds the task, the task its error, and the error's traceback this frame


T = TypeVar("T")
_END: Any = object()


class BridgeRunner(Wrapper):
    """Lets other loops call a Runner on `loop`; cancellation and contextvars are carried over."""

    def __init__(self, inner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(inner)
        self._loop = loop
        self._closed = False
        self._calls: set[_BridgedCall] = set()

    async def call(self, call: Call, /) -> Result:
        return await self._over(self.inner.call(call))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        steps = self.inner.stream(call)
        try:
            while (docs := await self._over(_next(steps))) is not _END:
                yield docs
        finally:
            if not self._closed:
                await self._over(steps.aclose(), whole=True)

    def close(self) -> None:
        """End: waiting calls fail, as the loop is ending."""
        self._closed = True
        for bridged in list(self._calls):
            bridged.stopped()

    async def _over(self, work: Coroutine[Any, Any, T], *, whole: bool = False) -> T:
        """Run `work` on the other loop and wait for its end, even if cancelled; `whole`: without cancelling it."""
        bridged = _BridgedCall(work, self._loop)
        cancelled: asyncio.CancelledError | None = None
        failure: BaseException | None = None
        self._calls.add(bridged)  # before reading `_closed`: no call can be missed by `close`
        try:
            if self._closed:
                work.close()
                raise interrupted_error("serving ended", begun=False)
            bridged.start()
            cancelled = await wait_until_done([bridged.outcome], hurry=(lambda: None) if whole else bridged.cancel)
            if cancelled is not None:
                raise cancelled
            result, failure = bridged.outcome.result()
            if failure is not None:
                raise failure
            return result  # type: ignore[no-any-return]  # a future of a pair
        finally:
            self._calls.discard(bridged)
            del bridged, cancelled, failure  # the errors' tracebacks reference this frame


class _BridgedCall:
    """A coroutine on the loop `there`, and the future of its result or error on the caller's loop."""

    __slots__ = ("_context", "_here", "_task", "_there", "_work", "outcome")

    def __init__(self, work: Coroutine[Any, Any, Any], there: asyncio.AbstractEventLoop) -> None:
        self._work, self._there = work, there
        self._here = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[Any] | None = None
        self.outcome: asyncio.Future[tuple[Any, BaseException | None]] = self._here.create_future()

    def start(self) -> None:
        try:
            self._there.call_soon_threadsafe(self._begin, context=self._context)
        except RuntimeError:  # that loop is closed
            self._work.close()
            self.stopped()

    def cancel(self) -> None:
        try:
            self._there.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            self.stopped()

    def stopped(self) -> None:
        """Fail the call: serving has ended."""
        self.report(None, interrupted_error("serving ended", begun=self._task is not None))

    def report(self, result: Any, error: BaseException | None) -> None:
        """Set the outcome, from any thread; the first report counts."""
        try:
            self._here.call_soon_threadsafe(self._set_outcome, result, error)
        except RuntimeError:
            pass  # the caller's loop is closed

    def _begin(self) -> None:
        self._task = start_task(self._work, self._done, context=self._context)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.stopped()
        elif (error := task.exception()) is not None:
            self.report(None, error)
        else:
            self.report(task.result(), None)

    def _set_outcome(self, result: Any, error: BaseException | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result((result, error))


async def _next(steps: AsyncGenerator[Docs, None]) -> Any:
    return await anext(steps, _END)
