"""Dynamic batching in front of any Runner: calls to one endpoint with equal parameters share batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from jina_asgi.concurrency.lifecycle import RUNNING, Lifecycle
from jina_asgi.documents import field_plans
from jina_asgi.documents.codec import Codec, codec
from jina_asgi.errors import ExecutorError, InvalidDocs, NotReady
from jina_asgi.observability.current_call import CURRENT
from jina_asgi.runners.admission import Admission, both_queues
from jina_asgi.runners.batching.batches import Batching
from jina_asgi.runners.batching.hints import BatchHints, BatchPlan, HintReader, clamp_priority, copy_answer
from jina_asgi.runners.batching.waiters import BatchMembers, EmptyBatch, Submission
from jina_asgi.runners.measures import MakeBatchObserver
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.types import EMPTY, Call, Context, Docs, Endpoint, Result, Runner, Ticket


class BatchRunner(Wrapper):
    """Batches the endpoints that have settings for it; forwards everything else.

    Args:
        inner: the Runner that answers a batch as if it were one call.
        plans: by endpoint; or a function that returns them once the inner Runner has loaded.
        admission: bounds the queue, in calls and bytes.
        grace: seconds that queued calls get when serving ends.
        slots: of an endpoint, how many batches the inner Runner runs at once, and how many more full ones it may queue;
            the settings' `prefetch` is added for each slot.
        readers: of the hints of each endpoint, which `HintRunner` has read elsewhere if documents stay buffers.
        encoded: documents stay buffers, which the process that runs a batch decodes.
        queue: makes the queue of an endpoint.
        name: the Deployment's, for the log lines of a batch.
    """

    def __init__(
        self,
        inner: Runner,
        plans: Mapping[str, BatchPlan] | Callable[[], Mapping[str, BatchPlan]],
        *,
        admission: Admission,
        grace: float,
        slots: Callable[[str], tuple[int, int]],
        readers: Mapping[str, HintReader] = EMPTY,
        encoded: bool = False,
        queue: Callable[..., BatchedEndpoint] | None = None,
        name: str = "",
    ) -> None:
        super().__init__(inner)
        self._queue, self._name = queue or BatchedEndpoint, name
        self._plans, self._readers, self._encoded = plans, readers, encoded
        self._admission, self._slots = admission, slots
        self._batched: dict[str, BatchedEndpoint] = {}
        self._life = Lifecycle(grace)

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        if self._find(endpoint) is None:
            return self.inner.admit(endpoint, size=size)
        if self._life.state != "ready":
            raise NotReady.in_state(endpoint, self._life.state)
        return self._admission.admit(size)

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        batched = self._find(call.endpoint)
        if batched is None:
            return self.inner.call(call)
        if self._life.state not in RUNNING:
            raise NotReady.in_state(call.endpoint, self._life.state)
        return batched.call(call)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        with self._life.running():
            async with self.inner.lifespan():
                plans = self._plans() if callable(self._plans) else self._plans
                self._batched = {name: self._endpoint(name, plan) for name, plan in plans.items()}
                async with self._life.ending(self._end):
                    self._life.state = "ready"
                    yield

    def _find(self, name: str) -> BatchedEndpoint | None:
        """Return the queue of an endpoint, or of "/default" in its place; None if its calls are not batched."""
        found = self._batched.get(name)
        if found is None and "/default" in self._batched and name not in self.endpoints:
            found = self._batched["/default"]
        return found

    def _endpoint(self, name: str, plan: BatchPlan) -> BatchedEndpoint:
        slots, ahead = self._slots(name)
        if self.endpoints[name].concurrent:  # a method in a thread prepares nothing meanwhile
            ahead += slots * plan.prefetch
        return self._queue(
            self.inner,
            self.endpoints[name],
            plan,
            admission=self._admission,
            slots=slots,
            ahead=ahead,
            reader=self._readers.get(name),
            encoded=self._encoded,
            deployment=self._name,
        )

    async def _end(self) -> None:
        """Wait for queued and running calls; after the grace period, stop them."""
        queues = [batched.batching for batched in self._batched.values()]
        await self._life.drain(False, lambda: asyncio.gather(*(queue.drain() for queue in queues)))
        for queue in queues:
            queue.stop()

    def measure_batches(self, deployment: str, measures: MakeBatchObserver) -> None:
        for name, batched in self._batched.items():
            batched.batching.observer = measures(deployment, name)
        super().measure_batches(deployment, measures)

    def status(self) -> dict[str, Any]:
        figures = {name: batched.batching.status() for name, batched in self._batched.items()}
        inner, queue = super().status(), self._admission.status()
        if "queue" in inner:  # that of the endpoints which are not batched
            queue = both_queues(inner["queue"], queue)
        return {**inner, "batching": figures, "queue": queue}


class BatchedEndpoint:
    """The queue of one endpoint."""

    #: The class of the submissions to it.
    submissions = Submission

    def __init__(
        self,
        inner: Runner,
        endpoint: Endpoint,
        plan: BatchPlan,
        *,
        admission: Admission,
        slots: int,
        ahead: int,
        reader: HintReader | None,
        encoded: bool,
        deployment: str,
    ) -> None:
        self._deployment = deployment
        self._encoded, self._admission, self._reader = encoded, admission, reader
        self._inner, self._name = inner, endpoint.name
        lanes = plan.bounds.lanes
        self._weights = None if lanes is None else lanes.weights
        self._mix_tenants, self._deduplicate = plan.mix_tenants, plan.single_flight
        self._output = codec(endpoint.output)
        has_urgent = plan.target is not None or (lanes is not None and not lanes.by_arrival)
        self.batching = Batching(
            self._run,
            replace(plan.bounds, idempotent=endpoint.idempotent),
            slots=slots,
            # Batches formed ahead would delay an urgent call; files of uploads are locked as they are read.
            ahead=0 if has_urgent or field_plans.takes_paths(endpoint.input) else ahead,
            oversized_alone=plan.oversized_alone,
            name=endpoint.name,
            target=plan.target,
            submissions=self.submissions,
            **({} if encoded else {"copy_answer": copy_answer}),
        )
        #: By key: the number of calls, their parameters, the codec of their docs.
        self._parameters: dict[Hashable, list[Any]] = {}

    async def call(self, call: Call) -> Result:
        docs = call.docs.encoded if self._encoded else call.docs.typed
        hints = _NO_HINTS if self._reader is None and not self._encoded else self._hints(call)
        tenant = hints.tenant or call.context.tenant
        key = ("" if self._mix_tenants else tenant, canonical(call.parameters))
        inputs: Sequence[Hashable] | None = None
        if self._deduplicate and hints.inputs is not None:
            inputs = [(tenant, name) for name in hints.inputs]  # a batch may be shared, an answer never
        if self._weights is not None:
            self._admission.enter(tenant, self._weights.get(tenant, 1.0))
        shared = self._parameters.setdefault(key, [0, call.parameters, call.docs.codec])
        shared[0] += 1
        try:
            answers = await self.batching.submit(
                docs,
                key,
                hints.costs,
                call.context.deadline,
                tenant=hints.tenant,
                priority=hints.priority,
                inputs=inputs,
            )
        finally:
            shared[0] -= 1
            if not shared[0]:
                self._parameters.pop(key, None)
            if self._weights is not None:
                self._admission.exit(tenant)
        if self._encoded:
            return Result(self._output.encoded(answers))
        return Result(self._output.docs(self._output.wrap(answers)))

    def _hints(self, call: Call) -> BatchHints:
        context = call.context
        if self._encoded:
            return BatchHints(context.costs, context.tenant, clamp_priority(context.priority), context.inputs)
        return BatchHints() if self._reader is None else self._reader.read(call)

    async def _run(self, members: BatchMembers) -> list[Any]:
        if members.key not in self._parameters:
            raise EmptyBatch("all callers of this batch have left")
        _, parameters, reader = self._parameters[members.key]
        context = Context(deadline=members.deadline)
        CURRENT.set((context, self._deployment))
        begin = partial(self._begin, reader, members, context)
        call = Call(self._name, Docs(reader, []), parameters, context, giver="", on_begin=begin)
        result = await self._inner.call(call)
        if result.results:
            raise ExecutorError(
                f"{self._name} returned a dict; expected documents, one for each, as the endpoint is batched",
                endpoint=self._name,
            )
        self._output = result.docs.codec
        if self._encoded:
            return [*result.docs.encoded]
        typed = result.docs.typed
        return [*list.__iter__(typed)]  # a DocList's own iterator takes four times as long

    def _begin(self, reader: Codec, members: BatchMembers, context: Context) -> Docs:
        """Return the documents of a batch that begins now; `context` is that of the batch."""
        values = members.take()
        contexts = members.contexts
        context.request_ids = [each.request_id for each in contexts]
        for each in contexts:
            if each.record is not None:
                each.record.begin(len(values))
        return reader.encoded(values) if self._encoded else reader.docs(reader.wrap(values))


def canonical(value: Any) -> Hashable:
    """Return a hashable key of parameters: equal for equal values (1 and 1.0, in any order), not for 1 and True.

    Values that JSON does not have equal only themselves.

    Raises:
        InvalidDocs: nested too deep.
    """
    try:
        return _canonical({k: v for k, v in value.items() if k != "__results__"}) if value else ()
    except RecursionError:
        place = [{"loc": ["parameters"], "msg": "nested too deep"}]
        raise InvalidDocs("the parameters are nested too deep", place) from None


def _canonical(value: Any) -> Hashable:
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]  # a string, a number or None
    if kind is bool:
        return ("b", value)
    if isinstance(value, Mapping):
        return ("m", tuple(sorted(((str(key), _canonical(item)) for key, item in value.items()), key=_first)))
    if kind is list or kind is tuple:
        return ("l", tuple(map(_canonical, value)))
    return _Itself(value)


_NO_HINTS = BatchHints()
_PLAIN = frozenset({str, int, float, bytes, type(None)})


def _first(pair: tuple[str, Hashable]) -> str:
    return pair[0]


class _Itself:
    """A key that compares a value by identity."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)
