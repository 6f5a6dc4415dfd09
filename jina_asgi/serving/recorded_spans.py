"""The wrappers of a Deployment or a Flow whose `tracing` is set; imports OpenTelemetry."""

from __future__ import annotations

from functools import partial

from jina_asgi.observability.tracing import Tracing
from jina_asgi.runners.batching.tracing import TracedEndpoint
from jina_asgi.runners.tracing import (
    CarryingRunner,
    EntryRunner,
    MethodRunner,
    NodeSpanRunner,
    OutgoingRunner,
    WaitRunner,
)
from jina_asgi.serving.spans import Spans
from jina_asgi.settings.tracing import TracingSettings
from jina_asgi.types import Runner


class RecordedSpans(Spans):
    """Records the spans of a Deployment or a Flow."""

    tracing: Tracing

    def __init__(self, name: str, settings: TracingSettings) -> None:
        self._name, self.tracing = name, Tracing(name, settings)
        self._attributes = {"jina.deployment": name}
        self.queue = partial(TracedEndpoint, self.tracing, self._attributes)

    def entry(self, inner: Runner) -> Runner:
        return EntryRunner(inner, self.tracing)

    def method(self, inner: Runner, executor: str, replica: int = 0) -> Runner:
        return MethodRunner(
            inner, self.tracing, {**self._attributes, "jina.executor": executor, "jina.replica": replica}
        )

    def waits(self, inner: Runner) -> Runner:
        return WaitRunner(inner, self.tracing, self._attributes)

    def carries(self, inner: Runner) -> Runner:
        return CarryingRunner(inner, self.tracing)

    def outgoing(self, inner: Runner, protocol: str, server: str) -> Runner:
        return OutgoingRunner(inner, self.tracing, protocol, {**self._attributes, "server.address": server})

    def node(self, inner: Runner, name: str) -> Runner:
        return NodeSpanRunner(inner, self.tracing, self._name, name)
