"""Puts Runners together: what a Deployment's options say, one wrapper after another, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jina_asgi.batching import batching_of
from jina_asgi.executor import Executor, bind
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.batcher import BatchRunner
from jina_asgi.runners.deadline import DeadlineRunner
from jina_asgi.runners.local import LocalRunner
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.runners.shared import SharedRunner
from jina_asgi.settings import BatchingSettings, DeploymentSettings
from jina_asgi.types import Runner


def assemble(uses: type[Executor], settings: DeploymentSettings) -> ObserveRunner:
    """observe → deadline → shared → batcher → local executor, or a pool of processes in its place."""
    inner: Runner
    batching = _batching(uses, settings)
    if settings.pooled:
        inner, slots = _pool(uses, settings, batching)
    else:
        inner = local = LocalRunner(uses, settings)
        slots = local.slots
    if batching:
        admission = Admission(settings.max_queue, settings.max_queue_bytes)
        inner = BatchRunner(inner, batching, admission=admission, grace=settings.grace, slots=slots)
    return ObserveRunner(DeadlineRunner(SharedRunner(inner)), settings.name)


def _pool(
    uses: type[Executor], settings: DeploymentSettings, batching: Mapping[str, BatchingSettings]
) -> tuple[Runner, Callable[[str], tuple[int, int]]]:
    from jina_asgi.processes.pool import process_pool  # Linux only
    from jina_asgi.processes.spec import replica_options
    from jina_asgi.processes.uses import Uses

    local = LocalRunner(uses, settings)  # never entered: what it would serve is what the replicas do
    pool = process_pool(
        Uses.of(uses),
        settings,
        replica_options(settings),
        endpoints=local.endpoints,
        again=lambda endpoint: endpoint.idempotent and endpoint.name not in batching,
    )

    def slots(endpoint: str) -> tuple[int, int]:
        running, ahead = local.slots(endpoint)
        return running * settings.replicas, ahead * settings.replicas

    return pool, slots


def _batching(uses: type[Executor], settings: DeploymentSettings) -> Mapping[str, BatchingSettings]:
    methods = bind(uses, settings.uses_requests)
    return batching_of(uses, methods, settings.uses_dynamic_batching)  # YAML's `dynamic_batching:` comes before it


def replica_runner(uses: type[Executor], settings: DeploymentSettings, replica: int, replicas: int) -> LocalRunner:
    """What a replica answers with: nothing but the Executor; its endpoints say how they want to be batched."""
    batching = {name: chosen.described() for name, chosen in _batching(uses, settings).items()}
    return LocalRunner(uses, settings, replica=replica, replicas=replicas, batching=batching)
