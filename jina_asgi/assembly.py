"""Puts Runners together: what a Deployment's options say, one wrapper after another, in one place."""

from __future__ import annotations

from jina_asgi.executor import Executor
from jina_asgi.runners.deadline import DeadlineRunner
from jina_asgi.runners.local import LocalRunner
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.runners.shared import SharedRunner
from jina_asgi.settings import DeploymentSettings


def assemble(uses: type[Executor], settings: DeploymentSettings) -> ObserveRunner:
    """observe → deadline → shared → local executor."""
    return ObserveRunner(DeadlineRunner(SharedRunner(LocalRunner(uses, settings))), settings.name)
