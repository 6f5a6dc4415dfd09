"""Dynamic batching as users write it: the decorator, the options that override it, and a function of one's own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from jina_asgi._batch_items import Bounds
from jina_asgi._raised import leave
from jina_asgi.endpoints import Method
from jina_asgi.errors import DeadlineExceeded, DefinitionError
from jina_asgi.executor import Executor
from jina_asgi.runners.batching import Batching
from jina_asgi.runners.costs import weight
from jina_asgi.runners.riders import Members
from jina_asgi.settings import BatchingSettings

F = TypeVar("F", bound=Callable[..., Any])
In = TypeVar("In")
Out = TypeVar("Out")
_RECORD = "__jina_asgi_dynamic_batching__"


@overload
def dynamic_batching(function: F, /) -> F: ...
@overload
def dynamic_batching(**options: Any) -> Callable[[F], F]: ...
def dynamic_batching(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark an endpoint's method as batching calls together; above or below `@requests`.

    The method is called with the documents of many requests, and answers one for each, in order.

    Args:
        options: those of `BatchingSettings`: `preferred_batch_size`, `timeout` (milliseconds), `flush_all`,
            `custom_metric`, `use_custom_metric`, `use_dynamic_batching`; `gather`, `cost`, `max_cost`, `over_budget`,
            `padded`, `prefetch`; `max_padding`, `buckets`, `bucket_wait` (milliseconds); `priority`, `priority_ageing`
            (milliseconds); `tenant`, `tenant_weights`, `mix_tenants`; `single_flight`; `latency_target` (milliseconds).

    Raises:
        DefinitionError: an option that does not exist or does not fit.
    """
    BatchingSettings.of(options)

    def record(method: F) -> F:
        setattr(method, _RECORD, options)
        return method

    return record if function is None else record(function)


Options = Mapping[str, Mapping[str, Any]]


def batching_of(uses: type[Executor], methods: Mapping[str, Method], *layers: Options) -> dict[str, BatchingSettings]:
    """The settings of every endpoint that batches.

    Args:
        uses: the Executor class, whose decorators say first.
        methods: its endpoints, as bound.
        layers: options by endpoint or method name, a later layer over an earlier one, option by option. Then what
            stands under an endpoint's name is over what stands under its method's.

    Raises:
        DefinitionError: a key that is neither an endpoint nor a method, an option that does not fit, or an endpoint
            that cannot batch.
    """
    named = _merged([_by_known_name(methods, layer) for layer in layers])
    found: dict[str, BatchingSettings] = {}
    for endpoint, method in methods.items():
        recorded: Mapping[str, Any] | None = getattr(getattr(uses, method.attribute), _RECORD, None)
        said = [one for one in (recorded, named.get(method.attribute), named.get(endpoint)) if one is not None]
        options = {key: value for one in said for key, value in one.items()}
        if not said or not options.get("use_dynamic_batching", True):
            continue
        if method.endpoint.kind != "batch":
            raise DefinitionError(
                f"{uses.__name__}.{method.attribute} takes one document at a time and cannot batch: "
                "let it take `docs` and return as many, or set use_dynamic_batching=False"
            )
        found[endpoint] = BatchingSettings.of(options)
    return found


def _by_known_name(methods: Mapping[str, Method], layer: Options) -> Options:
    """A layer whose every key is an endpoint or a method, endpoints with their slash."""
    attributes = {method.attribute for method in methods.values()}
    named = {key if key in attributes or key.startswith("/") else f"/{key}": value for key, value in layer.items()}
    if unknown := [key for key in named if key not in methods and key not in attributes]:
        known = ", ".join(dict.fromkeys([*methods, *sorted(attributes)]))
        raise DefinitionError(f"dynamic batching is asked for {unknown[0]!r}; known: {known}")
    return named


def _merged(layers: Sequence[Options]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, options in layer.items():
            merged.setdefault(name, {}).update(options)
    return merged


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
        cost, max_cost: what a value costs, and a batch's total at most.
        idempotent: a failing batch is run again in halves, so that only the guilty value's caller is told.
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
        """The answer to one value.

        Args:
            value: for the function.
            key: values of different keys never ride together.
            timeout: seconds, after which nobody waits: a value that is still queued then is never run.

        Raises:
            DeadlineExceeded: the timeout passed first. BatchFailed: the batch failed, and several were in it; try again.
            ExecutorError: the function did not answer with a list of one answer each. Else what the function raised,
            or `cost`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            costs = None if self._cost is None else [weight(self._cost(value))]
        except BaseException as error:  # noqa: BLE001
            leave(error)
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
        """Wait until nothing is queued and nothing runs: for the end of a host's lifespan."""
        await self._batching.drain()

    def status(self) -> dict[str, Any]:
        """The figures: queue, batch sizes, waits, what was cancelled, expired, failed, bisected."""
        return self._batching.status()

    async def _run(self, members: Members) -> Sequence[Out]:
        return await self._function(members.take())
