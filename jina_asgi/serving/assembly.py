"""Assembles the Runners of a Deployment or a Flow from its options, one wrapper after another.

The modules of `processes` are imported only if a pool is requested, as they need Linux.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jina_asgi.clients.address import Address, address_of
from jina_asgi.errors import DefinitionError
from jina_asgi.executors.batching import batching_of
from jina_asgi.executors.executor import Executor, bind
from jina_asgi.executors.import_path import Uses, pass_through
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.batching.hints import BatchPlan, HintReader, HintRunner
from jina_asgi.runners.batching.runner import BatchRunner
from jina_asgi.runners.breaker import BreakerRunner
from jina_asgi.runners.bridge import SharedRunner
from jina_asgi.runners.flow._graph import Graph
from jina_asgi.runners.flow.execution import FlowNode
from jina_asgi.runners.flow.runner import FlowRunner
from jina_asgi.runners.flow.shards import AFTER, HeadRunner, ShardRunner, cannot_batch
from jina_asgi.runners.local.runner import LocalRunner
from jina_asgi.runners.wrappers import DeadlineRunner, ObserveRunner
from jina_asgi.serving.config.executor import HeadExecutor
from jina_asgi.serving.spans import Spans
from jina_asgi.settings import AROUND, BatchingSettings, DeploymentSettings
from jina_asgi.settings.jina_options import as_jina
from jina_asgi.settings.tracing import TracingSettings
from jina_asgi.types import EMPTY, Endpoint, Runner

logger = logging.getLogger("jina_asgi")


def assemble(
    uses: Uses | type[Executor] | None, settings: DeploymentSettings, around: Mapping[str, HeadExecutor] = EMPTY
) -> ObserveRunner:
    """observe → deadline → shared → spans → the Runner itself: one Executor, or all its shards, or a server elsewhere.

    `around` has the Executors before and after the shards.
    """
    inner: Runner
    spans = spans_of(settings.name, settings)
    if uses is None:
        inner = _elsewhere(settings, spans)
    elif settings.shards > 1:
        shards = [_answering(uses, settings.of_shard(number)) for number in range(settings.shards)]
        admission = Admission(settings.max_queue, settings.max_queue_bytes)
        inner = sharded = ShardRunner(
            settings.name,
            shards,
            settings.polls_all,
            no_reduce=settings.no_reduce,
            admission=admission,
            partial=as_jina(),
        )
        if around:
            runners = {part: _around(part, one, settings.name) for part, one in around.items()}
            inner = HeadRunner(sharded, *(runners.get(part) for part in AROUND), grace=settings.grace)
    else:
        inner = _answering(uses, settings)
    inner = spans.entry(inner)
    return ObserveRunner(
        DeadlineRunner(SharedRunner(inner, settings.name, grace=settings.grace), settings.timeout), settings.name
    )


def spans_of(name: str, settings: TracingSettings) -> Spans:
    """The wrappers of a Deployment or a Flow.

    Raises:
        DefinitionError: `tracing` is set, and OpenTelemetry is missing.
    """
    if not settings.tracing:
        return Spans()
    try:
        from jina_asgi.serving.recorded_spans import RecordedSpans  # with OpenTelemetry, an extra
    except ImportError as error:
        raise DefinitionError(
            f"{name}: tracing needs the extra otel: pip install 'jina-asgi[otel]' ({error})"
        ) from error
    return RecordedSpans(name, settings)


def _around(part: str, one: HeadExecutor, name: str) -> Runner:
    """The Runner of the Executor before the shards of a Deployment, or of the one after them."""
    if part == AFTER and not one.settings.pooled:  # a pool's replicas report what they batch
        cls = one.uses.load() if isinstance(one.uses, Uses) else one.uses
        if batched := next(iter(_batching(cls, one.settings)), None):
            raise DefinitionError(cannot_batch(name, batched))
    return _answering(one.uses, one.settings)


def _elsewhere(settings: DeploymentSettings, spans: Spans) -> Runner:
    """spans → breaker → the server at the address, or those at several, in turn."""
    places = [address_of(url, None, settings.protocols[0], tls=settings.tls) for url in settings.urls]
    protocols = {place.protocol for place in places}
    if protocols == {"grpc"}:
        servers = ", ".join(settings.urls)
        return spans.outgoing(BreakerRunner(_elsewhere_by_grpc(places, settings), servers), "grpc", servers)
    if protocols != {"http"}:
        raise DefinitionError(
            f"{settings.name} is external at {', '.join(settings.urls)}: expected grpc or http, and one of them for all"
        )
    from jina_asgi.protocols.remote.server import HttpRunner  # with httpx

    runners = [
        spans.outgoing(BreakerRunner(HttpRunner(place.url, grace=settings.grace), place.url), "http", place.url)
        for place in places
    ]
    if len(runners) == 1:
        return runners[0]
    admission = Admission(settings.max_queue, settings.max_queue_bytes)
    return ShardRunner(settings.name, runners, lambda _: False, no_reduce=True, admission=admission)


def _elsewhere_by_grpc(places: Sequence[Address], settings: DeploymentSettings) -> Runner:
    try:
        from jina_asgi.protocols.grpc.channels import Dialling  # with grpcio, an extra
        from jina_asgi.protocols.grpc.remote import GrpcRunner
    except ImportError as error:
        raise DefinitionError(
            f"{settings.name} is external over gRPC, which needs the extra grpc: pip install 'jina-asgi[grpc]' ({error})"
        ) from error
    dialling = Dialling.of(
        tls=any(place.tls for place in places),
        roots=settings.verify or True,
        options=settings.grpc_channel_options,
        compression=settings.compression,
    )
    targets = [place.target for place in places]
    return GrpcRunner(targets, dialling=dialling, metadata=settings.grpc_metadata, grace=settings.grace)


def _answering(uses: Uses | type[Executor], settings: DeploymentSettings) -> Runner:
    """batcher → local executor; with a pool, the host's Runner in place of both."""
    inner: Runner
    spans = spans_of(settings.name, settings)
    if settings.pooled:
        _linux_only(settings)
        from jina_asgi.processes.host_runner import HostRunner

        pool = HostRunner(_named(uses), settings, _endpoints(uses, settings))
        inner = HintRunner(spans.carries(pool), lambda: _hint_readers(uses, settings, pool.endpoints))
    else:
        cls = uses.load() if isinstance(uses, Uses) else uses
        local = LocalRunner(cls, settings, loaded=lambda: _say_how_many(settings.name), tracing=spans.tracing)
        inner = spans.method(local, cls.__name__)
        if batching := _batching(cls, settings):
            admission = Admission(settings.max_queue, settings.max_queue_bytes)
            inner = BatchRunner(
                inner,
                {name: BatchPlan.of(chosen) for name, chosen in batching.items()},
                admission=admission,
                grace=settings.grace,
                slots=local.slots,
                readers=_readers(batching),
                queue=spans.queue,
                name=settings.name,
            )
    return inner


def _say_how_many(name: str) -> None:
    """Log once for each server that every web worker has a copy of its own."""
    from jina_asgi.processes.devices import SLOT, WORKERS

    workers = os.environ.get(WORKERS, "1")
    if os.environ.get(SLOT) == "0" and workers != "1":
        logger.warning(
            "%s: %s web workers, a copy of the Executor in each; Deployment(..., replicas=1) keeps one for all",
            name,
            workers,
        )


def assemble_flow(
    name: str, graph: Graph, places: Mapping[str, FlowNode], settings: TracingSettings, *, grace: float
) -> ObserveRunner:
    """observe → deadline → shared → spans → the nodes of a Flow, each with its own stack.

    If no node has an Executor, the first one returns its documents unchanged, and so do all.
    """
    if places and not any(place.runner for place in places.values()):
        first = next(iter(places))
        passing_on = assemble(pass_through(), DeploymentSettings.of({"name": first}))
        places = {**places, first: FlowNode(first, passing_on, places[first].when)}
    spans = spans_of(name, settings)
    places = {
        node: place if place.runner is None else replace(place, runner=spans.node(place.runner, node))
        for node, place in places.items()
    }
    runner = spans.entry(FlowRunner(name, graph, places, grace=grace))
    return ObserveRunner(DeadlineRunner(SharedRunner(runner, name, grace=grace)), name)


def assemble_pool(
    uses: Uses | type[Executor],
    settings: DeploymentSettings,
    path: Sequence[str] | None = None,
    *,
    changed: Callable[[], None] = lambda: None,
    costs: bool = True,
) -> ObserveRunner:
    """observe → deadline → shared → batcher → replicas, for the process that keeps them: it reads no document.

    `path` is the replicas' module search path; None: this process's. `changed` is called when replicas start or
    end. Without `costs` the callers send the batching hints.
    """
    _linux_only(settings)
    if settings.shards > 1 and settings.shard_id < 0:
        raise DefinitionError(f"{settings.name}: a ReplicaPool has no shards; Deployment(replicas=..., shards=...) has")
    from jina_asgi.processes.replica_pool import process_pool

    batched: dict[str, BatchPlan] = {}  # known when a replica has reported its endpoints
    pool = process_pool(
        _named(uses),
        settings,
        path=sys.path if path is None else path,
        endpoints=_endpoints(uses, settings),
        again=lambda endpoint: endpoint.idempotent and endpoint.name not in batched,
        changed=changed,
    )

    def plans() -> Mapping[str, BatchPlan]:
        batched.update(_plans_of(pool.endpoints))
        return batched

    def slots(endpoint: str) -> tuple[int, int]:
        if pool.endpoints[endpoint].concurrent:
            return settings.replicas, 0
        return settings.replicas * settings.threads, settings.replicas

    admission = Admission(settings.max_queue, settings.max_queue_bytes)
    spans = spans_of(settings.name, settings)
    batcher: Runner = BatchRunner(
        spans.waits(pool),
        plans,
        admission=admission,
        grace=settings.grace,
        slots=slots,
        encoded=True,
        queue=spans.queue,
        name=settings.name,
    )
    batcher = spans.entry(batcher)
    inner = HintRunner(batcher, lambda: _hint_readers(uses, settings, pool.endpoints)) if costs else batcher
    return ObserveRunner(
        DeadlineRunner(SharedRunner(inner, settings.name, grace=settings.grace), settings.timeout), settings.name
    )


def assemble_replica(uses: Uses, settings: DeploymentSettings, replica: int) -> tuple[Runner, LocalRunner]:
    """The Runner of a replica: the Executor, whose endpoints carry their batching options; the Executor's own Runner."""
    cls, spans = uses.load(), spans_of(settings.name, settings)
    if spans.tracing is not None:
        spans.tracing.provide()
    local = LocalRunner(cls, settings, replica=replica, batching=_described(cls, settings), tracing=spans.tracing)
    return spans.entry(spans.method(local, cls.__name__, replica)), local


def _linux_only(settings: DeploymentSettings) -> None:
    if sys.platform != "linux":
        raise DefinitionError(
            f"{settings.name}: replicas need Linux; placement='worker' keeps the Executor in the web worker"
        )


def _named(uses: Uses | type[Executor]) -> Uses:
    return uses if isinstance(uses, Uses) else Uses.of(uses)


def _endpoints(uses: Uses | type[Executor], settings: DeploymentSettings) -> Mapping[str, Endpoint] | None:
    """The endpoints of a class; None without the class: the replicas will report them."""
    if isinstance(uses, Uses):
        return None
    return LocalRunner(uses, settings, batching=_described(uses, settings)).endpoints


def _described(uses: type[Executor], settings: DeploymentSettings) -> dict[str, dict[str, Any]]:
    """The plans that replicas report, for the process that batches for them."""
    return {name: BatchPlan.of(chosen).data() for name, chosen in _batching(uses, settings).items()}


def _plans_of(endpoints: Mapping[str, Endpoint]) -> dict[str, BatchPlan]:
    return {name: BatchPlan.read(found.batching) for name, found in endpoints.items() if found.batching is not None}


def _readers(batched: Mapping[str, BatchingSettings | BatchPlan]) -> dict[str, HintReader]:
    return {
        name: HintReader.of(name, one.hints, single_flight=one.single_flight)
        for name, one in batched.items()
        if one.hints or one.single_flight
    }


def _hint_readers(
    uses: Uses | type[Executor], settings: DeploymentSettings, endpoints: Mapping[str, Endpoint]
) -> dict[str, HintReader]:
    """The readers of the hints that the pool host batches by.

    Raises:
        DefinitionError: a function needs the class, which is not available.
    """
    if not isinstance(uses, Uses):
        return _readers(_batching(uses, settings))
    plans = _plans_of(endpoints)
    if needs_class := next((name for name, plan in plans.items() if plan.functions), None):
        raise DefinitionError(
            f"{needs_class} batches by a function, for which the Executor's class must be at hand: give the Deployment the"
            ' class, or name a field, such as cost="len:text"'
        )
    return _readers(plans)


def batches(uses: Uses | type[Executor], settings: DeploymentSettings) -> list[str]:
    """The batched endpoints, as far as they are known here."""
    return [] if isinstance(uses, Uses) else list(_batching(uses, settings))


def _batching(uses: type[Executor], settings: DeploymentSettings) -> Mapping[str, BatchingSettings]:
    methods = bind(uses, settings.uses_requests)
    return batching_of(uses, methods, settings.uses_dynamic_batching)
