"""Bridges calls from any event loop to a Runner on another."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from jina_asgi.concurrency.tasks import start_task, wait_until_done
from jina_asgi.errors import interrupted_error
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner

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
