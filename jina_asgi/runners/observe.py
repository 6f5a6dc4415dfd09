"""Counts calls and writes the trail: which node ran, its start and end, and its error."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from jina_asgi.errors._shown import class_name
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner, Step


class ObserveRunner(Wrapper):
    """Metrics of one node: calls and streams started, those in flight, and failures by error type."""

    def __init__(self, inner: Runner, name: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(inner)
        self.name, self._clock = name, clock
        self.calls = self.streams = self.in_flight = 0
        self.failures: Counter[str] = Counter()

    async def call(self, call: Call, /) -> Result:
        self.calls += 1
        self.in_flight += 1
        start = self._clock()
        try:
            result = await self.inner.call(call)
        except BaseException as error:
            self.failures[class_name(error)] += 1
            raise
        finally:
            self.in_flight -= 1
        step = Step(self.name, start, self._clock())
        return Result(result.docs, result.results, (*result.trail, step))

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        self.streams += 1
        self.in_flight += 1
        try:
            async with aclosing(self.inner.stream(call)) as steps:
                async for docs in steps:
                    yield docs
        except GeneratorExit:
            self.failures["Closed"] += 1
            raise
        except BaseException as error:
            self.failures[class_name(error)] += 1
            raise
        finally:
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
