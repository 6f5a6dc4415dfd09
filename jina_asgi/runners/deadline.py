"""Keeps deadlines: what is late ends with DeadlineExceeded, and its work is cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from jina_asgi.errors import DeadlineExceeded
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Docs, Result


class DeadlineRunner(Wrapper):
    """A call ends by its context's deadline, and each step of a stream does."""

    async def call(self, call: Call, /) -> Result:
        if call.context.deadline is None:
            return await self.inner.call(call)
        left = call.context.deadline - time.monotonic()
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
        return steps if call.context.deadline is None else _until(call.context.deadline, steps, call)


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
