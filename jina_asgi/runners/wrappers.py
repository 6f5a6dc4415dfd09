"""Wrappers of a Runner: their base, which forwards all methods, the counts and the trail of calls, and deadlines."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeGuard

from jina_asgi.errors import DeadlineExceeded
from jina_asgi.errors._shown import class_name
from jina_asgi.observability.current_call import CURRENT, WATCH, CurrentCall
from jina_asgi.runners.measures import MakeBatchObserver
from jina_asgi.types import Call, Docs, Endpoint, Result, Runner, Step, Ticket


class Wrapper:
    """A Runner around a Runner."""

    def __init__(self, inner: Runner) -> None:
        self.inner = inner
        self._endpoints_source: Runner = inner._endpoints_source if _forwards(inner, "endpoints") else inner
        # A call in process takes 6 % less than through methods that forward, and is not in the way of a traceback.
        for name in ("admit", "call", "stream"):
            if _forwards(self, name):
                setattr(self, name, getattr(inner, name))

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._endpoints_source.endpoints

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        return self.inner.admit(endpoint, size=size)

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        return self.inner.call(call)

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self.inner.stream(call)

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        return self.inner.lifespan()

    def unhealthy_reason(self) -> str:
        """Return why no call can be answered now, though this runs; '' if some can."""
        reason = getattr(self.inner, "unhealthy_reason", None)
        return str(reason()) if callable(reason) else ""

    def status(self) -> dict[str, Any]:
        """Return the inner Runner's metrics for `/-/status`; a wrapper adds its own."""
        status = getattr(self.inner, "status", None)
        return dict(status()) if callable(status) else {}

    def measure_batches(self, deployment: str, measures: MakeBatchObserver) -> None:
        """Have all batches within measured, under the name of their Deployment; called when it has loaded."""
        measure = getattr(self.inner, "measure_batches", None)
        if callable(measure):
            measure(deployment, measures)


def _forwards(runner: Runner, name: str) -> TypeGuard[Wrapper]:
    """Whether a Runner is a wrapper that forwards the attribute `name`."""
    return isinstance(runner, Wrapper) and getattr(type(runner), name) is getattr(Wrapper, name)


class NodeWrapper(Wrapper):
    """A wrapper of one node of a Flow; several nodes may share the Runner within."""


class ObserveRunner(Wrapper):
    """Metrics of one node: calls and streams started, those in flight, and failures by error type.

    Lines that are logged while a call runs name this node.
    """

    def __init__(self, inner: Runner, name: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(inner)
        self.name, self._clock = name, clock
        self.calls = self.streams = self.in_flight = 0
        self.failures: Counter[str] = Counter()

    async def call(self, call: Call, /) -> Result:
        self.calls += 1
        self.in_flight += 1
        start = self._clock()
        before: CurrentCall | None = None
        if is_other := WATCH.on:
            before, current = CURRENT.get(), (call.context, self.name)
            if is_other := before != current:  # not within a request to this very node
                CURRENT.set(current)
        try:
            result = await self.inner.call(call)
        except BaseException as error:
            self.failures[class_name(error)] += 1
            raise
        finally:
            if is_other:
                CURRENT.set(before)
            self.in_flight -= 1
        step = Step(self.name, start, self._clock())
        return Result(result.docs, result.results, (*result.trail, step))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        self.streams += 1
        self.in_flight += 1
        before, current = CURRENT.get(), (call.context, self.name)
        if is_other := WATCH.on and before != current:
            CURRENT.set(current)
        try:
            async with aclosing(self.inner.stream(call)) as steps:
                async for docs in steps:
                    if is_other:
                        CURRENT.set(before)  # until the next step
                    yield docs
                    if is_other:
                        CURRENT.set(current)
        except GeneratorExit:
            self.failures["Closed"] += 1
            raise
        except BaseException as error:
            self.failures[class_name(error)] += 1
            raise
        finally:
            if is_other:
                CURRENT.set(before)
            self.in_flight -= 1

    def status(self) -> dict[str, Any]:
        """Return the metrics for `/-/status`; of a pool, this process's are under `worker`."""
        inner = super().status()
        ours = {
            "calls": self.calls,
            "streams": self.streams,
            "in_flight": self.in_flight,
            "failures": dict(self.failures),
        }
        return {**inner, "worker": {**inner["worker"], **ours}} if "worker" in inner else {**inner, **ours}


class DeadlineRunner(Wrapper):
    """A call ends by its context's deadline, and each step of a stream does.

    Args:
        inner: the Runner that answers.
        timeout: the most seconds of a call, whatever its deadline; None: no limit.
    """

    def __init__(self, inner: Runner, timeout: float | None = None) -> None:
        super().__init__(inner)
        self._timeout = timeout

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        if self._timeout is None and call.context.deadline is None:  # the common case
            return self.inner.call(call)
        return self._call_until(self._moment(call), call)

    async def _call_until(self, moment: float, call: Call) -> Result:
        left = moment - time.monotonic()
        if left <= 0:  # else a thread might have begun before the timeout fires
            raise _late(call)
        deadline = asyncio.timeout(left)
        try:
            async with deadline:
                return await self.inner.call(call)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _late(call) from None

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        steps = self.inner.stream(call)
        if self._timeout is None and call.context.deadline is None:
            return steps
        return _until(self._moment(call), steps, call)

    def _moment(self, call: Call) -> float:
        deadline = math.inf if call.context.deadline is None else call.context.deadline
        return deadline if self._timeout is None else min(deadline, time.monotonic() + self._timeout)


async def _until(moment: float, steps: AsyncGenerator[Docs, None], call: Call) -> AsyncGenerator[Docs, None]:
    async with aclosing(steps):
        while True:
            deadline = asyncio.timeout(moment - time.monotonic())
            try:
                async with deadline:
                    docs = await anext(steps)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not deadline.expired():
                    raise
                raise _late(call) from None
            yield docs


def _late(call: Call) -> DeadlineExceeded:
    return DeadlineExceeded(f"the deadline of this call to {call.endpoint} has passed")
