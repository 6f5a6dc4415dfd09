"""Puts Runners together: what a Deployment's options say, one wrapper after another, in one place."""

from __future__ import annotations

from jina_asgi.batching import batching_of
from jina_asgi.executor import Executor, bind
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.batcher import BatchRunner
from jina_asgi.runners.deadline import DeadlineRunner
from jina_asgi.runners.local import LocalRunner
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.runners.shared import SharedRunner
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Runner


def assemble(uses: type[Executor], settings: DeploymentSettings) -> ObserveRunner:
    """observe → deadline → shared → batcher → local executor."""
    local = LocalRunner(uses, settings)
    inner: Runner = local
    methods = bind(uses, settings.uses_requests)
    batching = batching_of(uses, methods, settings.uses_dynamic_batching)  # YAML's `dynamic_batching:` comes before it
    if batching:
        admission = Admission(settings.max_queue, settings.max_queue_bytes)
        inner = BatchRunner(local, batching, admission=admission, grace=settings.grace, slots=local.slots)
    return ObserveRunner(DeadlineRunner(SharedRunner(inner)), settings.name)
