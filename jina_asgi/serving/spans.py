"""The wrappers that record the spans of a Deployment or a Flow, where `tracing` is set; these record none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jina_asgi.runners.batching.runner import BatchedEndpoint
from jina_asgi.types import Runner

if TYPE_CHECKING:
    from jina_asgi.observability.tracing import Tracing  # with OpenTelemetry, an extra


class Spans:
    """Records nothing."""

    #: What an Executor's own spans are made by.
    tracing: Tracing | None = None
    #: Makes the queue of a batched endpoint.
    queue: Callable[..., BatchedEndpoint] | None = None

    def entry(self, inner: Runner) -> Runner:
        """The outermost wrapper: each call has a current span."""
        return inner

    def method(self, inner: Runner, executor: str, replica: int = 0) -> Runner:
        """Around an Executor in this process."""
        return inner

    def waits(self, inner: Runner) -> Runner:
        """Around the replicas, which calls wait for."""
        return inner

    def carries(self, inner: Runner) -> Runner:
        """Around the pool host, which gets the context."""
        return inner

    def outgoing(self, inner: Runner, protocol: str, server: str) -> Runner:
        """Around a server elsewhere, which gets the context."""
        return inner

    def node(self, inner: Runner, name: str) -> Runner:
        """Around a node of a Flow."""
        return inner
