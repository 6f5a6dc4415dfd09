"""DynamicBatching: batches the calls of any asynchronous function of a list."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from jina_asgi.errors import DeadlineExceeded, DefinitionError
from jina_asgi.errors._raised import raise_sanitized
from jina_asgi.runners.batching._items import Bounds
from jina_asgi.runners.batching.batches import Batching
from jina_asgi.runners.batching.hints import checked_cost
from jina_asgi.runners.batching.waiters import BatchMembers

In = TypeVar("In")
Out = TypeVar("Out")


class DynamicBatching(Generic[In, Out]):
    """Batches the calls of any asynchronous function of a list, such as the one behind a route of your own.

        embed = DynamicBatching(embed_many, max_batch_size=32)

        @app.post("/embed")
        async def route(text: Text) -> Vector:
            return await embed(text)

    Idle first: a lone call runs at once, and batches form while one runs.

    Args:
        function: `async (values) -> answers`, one for each, in order.
        max_batch_size: values in a batch at most.
        window: seconds to wait for more before an idle function is called (0: none).
        cost, max_cost: the cost of a value, and the most of a batch.
        idempotent: a failing batch is run again in halves, so that only the bad value's caller gets the error.
        concurrency: how many batches run at once.
    """

    def __init__(
        self,
        function: Callable[[list[In]], Awaitable[Sequence[Out]]],
        *,
        max_batch_size: int = 32,
        window: float = 0.0,
        cost: Callable[[In], float] | None = None,
        max_cost: float = math.inf,
        idempotent: bool = False,
        concurrency: int = 1,
    ) -> None:
        if max_batch_size < 1 or concurrency < 1 or window < 0:
            raise DefinitionError(
                "DynamicBatching: expected max_batch_size and concurrency above 0, and window not below"
            )
        self._function, self._cost = function, cost
        gather = "window" if window else "idle"
        bounds = Bounds(max_batch_size, max_cost, window, gather, idempotent)
        name = getattr(function, "__qualname__", type(function).__name__)
        self._batching = Batching(self._run, bounds, slots=concurrency, name=name)

    async def __call__(self, value: In, *, key: Any = None, timeout: float | None = None) -> Out:
        """Return the answer to one value.

        Args:
            value: for the function.
            key: values of different keys never share a batch.
            timeout: seconds, after which the call fails: a value that is still queued then is never run.

        Raises:
            DeadlineExceeded: the timeout passed first. BatchFailed: a batch of several calls failed; try again.
            ExecutorError: the function did not answer with a list of one answer each. Else what the function raised,
            or `cost`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            costs = None if self._cost is None else [checked_cost(self._cost(value))]
        except BaseException as error:  # noqa: BLE001
            raise_sanitized(error)
        try:
            async with asyncio.timeout(timeout) as limit:
                [answer] = await self._batching.submit([value], key, costs, deadline)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(f"no answer within {timeout} s") from None
        found: Out = answer
        return found

    async def drain(self) -> None:
        """Wait until the queue is empty and no batch runs: for the end of a host's lifespan."""
        await self._batching.drain()

    def status(self) -> dict[str, Any]:
        """Return the metrics: queue, batch sizes, waits, and counts of cancelled, expired, failed and bisected values."""
        return self._batching.status()

    async def _run(self, members: BatchMembers) -> Sequence[Out]:
        return await self._function(members.take())
