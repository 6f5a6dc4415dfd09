"""A Client's transport that records a span of each request, and sends its context. Imports OpenTelemetry."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

from opentelemetry.trace import SpanKind

from jina_asgi.clients.address import Address
from jina_asgi.observability.tracing import Tracing, client_span, stream_in, with_trace
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer, ServerDescription, Transport
from jina_asgi.settings.tracing import TracingSettings
from jina_asgi.types import EMPTY


class TracedTransport(Transport):
    """Sends requests with spans.

    Args:
        inner: sends them.
        address: the server's.
        settings: where spans are exported.
    """

    def __init__(self, inner: Transport, address: Address, settings: TracingSettings) -> None:
        super().__init__(inner.name)
        self._inner, self._protocol = inner, address.protocol
        self._tracing = Tracing("client", settings)

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        return await self._inner.served(headers)

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool:
        return await self._inner.ready(headers)

    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        name, attributes = client_span(self._protocol, request.endpoint)
        with self._tracing.span(name, {**attributes, "server.address": self.name}, SpanKind.CLIENT):
            return await self._inner.ask(_carrying(request))

    def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        name, attributes = client_span(self._protocol, request.endpoint, streams=True)
        attributes = {**attributes, "server.address": self.name}
        span = self._tracing.tracer.start_span(name, None, SpanKind.CLIENT, attributes)
        return stream_in(span, lambda request: self._inner.events(_carrying(request)), request)

    async def close(self) -> None:
        async with self._tracing.lifespan():
            await self._inner.close()


def _carrying(request: OutgoingRequest) -> OutgoingRequest:
    return replace(request, headers=with_trace(request.headers))
