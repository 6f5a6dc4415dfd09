"""Enforces deadlines: a late call fails with DeadlineExceeded, and its work is cancelled."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from jina_asgi.errors import DeadlineExceeded
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner


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
