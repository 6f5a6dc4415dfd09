"""What documents cost, told where they are objects: whoever batches for several processes sees only buffers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jina_asgi.errors import ExecutorError
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.types import Call, Endpoint, Result, Runner, resolve

Cost = Callable[[Any], float]


class CostRunner(Wrapper):
    """Writes into each call's context what its documents cost.

    Args:
        inner: what batches by these costs.
        costs: by endpoint; asked once the inner Runner has loaded.
    """

    def __init__(self, inner: Runner, costs: Callable[[], Mapping[str, Cost]]) -> None:
        super().__init__(inner)
        self._given, self._costs = costs, dict[str, Cost]()
        self._of: Mapping[str, Endpoint] = {}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.inner.lifespan():
            self._follow()
            yield

    def _follow(self) -> None:
        if self._of is not self.endpoints:
            self._of, self._costs = self.endpoints, dict(self._given())

    async def call(self, call: Call, /) -> Result:
        self._follow()
        if self._costs:
            endpoint = resolve(self.endpoints, call.endpoint)
            cost = None if endpoint is None else self._costs.get(endpoint.name)
            if cost is not None:
                call.context.costs = told(cost, call.docs.typed, call.endpoint)
        return await self.inner.call(call)


def told(cost: Cost, docs: Any, endpoint: str) -> list[float]:
    """What each document costs.

    Raises:
        ExecutorError: the function failed, or gave no number that can be added up.
    """
    try:
        return [weight(cost(doc)) for doc in docs]
    except Exception as error:
        raise ExecutorError(
            f"the cost of a document of {endpoint} could not be told: {type(error).__name__}: {error}",
            endpoint=endpoint,
            raised=type(error).__name__,
        ) from error


def weight(value: Any) -> float:
    """What a cost function told, as a number.

    Raises:
        ValueError: it is none that can be added up.
    """
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"expected a cost of at least 0, got {number}")
    return number
