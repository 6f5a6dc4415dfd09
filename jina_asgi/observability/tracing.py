"""The spans of this library: their parents, what they say of an error, and how they stay current in a stream.

Spans never hold a document's content: of an error only its type.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

from opentelemetry import propagate, trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from jina_asgi.errors import ExecutorError, JinaASGIError
from jina_asgi.errors._shown import class_name
from jina_asgi.settings.tracing import TracingSettings
from jina_asgi.types import EMPTY, Call

logger = logging.getLogger("jina_asgi")

A = TypeVar("A")
T = TypeVar("T")
_END: Any = object()
_FLUSH = 2.0  # seconds
_LOWER = 2**64 - 1
_open = 0  # lifespans


class Tracing:
    """Makes the spans of one Deployment, Flow, application or Client.

    A provider that the host has set makes them; without one, spans are exported by OTLP.

    Args:
        service: the resource's `service.name`.
        settings: where spans are exported.
    """

    def __init__(self, service: str, settings: TracingSettings) -> None:
        self._service, self._settings = service, settings
        self._tracer: trace.Tracer | None = None
        self._exports: Any = None  # our own provider
        self._follows_parents = False

    @property
    def tracer(self) -> trace.Tracer:
        """The tracer; made on first use, as the host may set its provider late."""
        if self._tracer is None:
            self._tracer = self._make_tracer()
        return self._tracer

    def _make_tracer(self) -> trace.Tracer:
        provider = self.provider
        sampler = getattr(provider, "sampler", None)
        self._follows_parents = sampler is not None and sampler.get_description().startswith("ParentBased")
        return provider.get_tracer("jina_asgi")

    @property
    def records(self) -> bool:
        """Whether a span that begins here may be recorded: a child of a dropped one is not, as samplers decide by default."""
        if self._tracer is None:
            self._tracer = self._make_tracer()
        span = trace.get_current_span()
        if type(span) is DroppedSpan:
            return False
        current = span.get_span_context()
        return current.trace_flags.sampled or not current.is_valid or not self._follows_parents

    def start_trace(self, name: str, kind: SpanKind, attributes: Mapping[str, Any]) -> Span:
        """Begin a span without a parent. One that is dropped costs little more than a random number."""
        tracer, ours = self.tracer, self._exports
        if ours is not None and ours.bound is not None:
            chosen = random.getrandbits(128)
            if chosen & _LOWER >= ours.bound:
                return DroppedSpan(chosen)
            ours.ids.choose(chosen)
        return tracer.start_span(name, TraceContext(), kind, attributes)

    @property
    def provider(self) -> trace.TracerProvider:
        """The host's provider if it has set one, else one that exports."""
        found = trace.get_tracer_provider()
        if not isinstance(found, trace.ProxyTracerProvider):
            return found
        try:
            from jina_asgi.observability.exporting import exporting_provider  # with the SDK, an extra
        except ImportError as error:
            logger.warning("tracing=True exports no spans: pip install 'jina-asgi[otel]' (%s)", error)
            return found
        host, port = self._settings.traces_exporter_host, self._settings.traces_exporter_port
        self._exports = made = exporting_provider(self._service, host, port)
        return made

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Prepare exporting on entering; when the last one is left, export what has not been exported."""
        global _open
        await asyncio.to_thread(getattr, self, "tracer")  # imports the SDK
        _open += 1
        try:
            yield
        finally:
            _open -= 1
            if self._exports is not None and not _open:
                from jina_asgi.observability.exporting import flush  # with the SDK, an extra

                await asyncio.to_thread(flush, _FLUSH)

    def provide(self) -> None:
        """Make our provider that of this process, which is ours and no host's."""
        provider = self.provider
        if self._exports is not None:
            trace.set_tracer_provider(provider)

    def context_of(self, call: Call) -> TraceContext:
        """The argument `tracing_context` of a method that runs here and now."""
        return get_current()

    def span(self, name: str, attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL) -> CurrentSpan:
        """A child of the current span that begins now, and is the current one within `with`."""
        return CurrentSpan(self.tracer.start_span(name, None, kind, attributes))


class DroppedSpan(trace.NonRecordingSpan):
    """A span of a trace that is not recorded; its context is made where it is sent on."""

    def __init__(self, chosen: int) -> None:
        self._chosen = chosen

    def get_span_context(self) -> trace.SpanContext:
        if "_context" not in vars(self):
            self._context = trace.SpanContext(self._chosen, random.getrandbits(64), is_remote=False)
        return self._context


class CurrentSpan:
    """A span that is current within `with`, and ends with it."""

    __slots__ = ("_token", "span")

    def __init__(self, span: Span) -> None:
        self.span = span

    def __enter__(self) -> Span:
        self._token = attach(set_span_in_context(self.span))
        return self.span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._token)
        if error is not None:
            record(self.span, error)
        self.span.end()


def current_span() -> Span | None:
    """The span that is current here; None without one."""
    found = trace.get_current_span()
    return found if type(found) is DroppedSpan or found.get_span_context().is_valid else None


def remote_parent(headers: Mapping[str, str]) -> TraceContext | None:
    """The caller's context in W3C headers; None without one."""
    if not headers or "traceparent" not in headers:
        return None
    found = propagate.extract(headers, TraceContext())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def with_trace(headers: Mapping[str, str], context: TraceContext | None = None) -> dict[str, str]:
    """Headers with a context, by default the current one, in place of their own."""
    carrier = {**headers}
    propagate.inject(carrier, context)
    return carrier


def record(span: Span, error: BaseException) -> None:
    """Record an error by its type, or that the caller left."""
    if not span.is_recording():
        return
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        said = "cancelled"
    else:
        said = (error.raised if isinstance(error, ExecutorError) else "") or class_name(error)
    span.set_attribute("error.type", said)
    span.set_status(StatusCode.ERROR, said)


def record_answer(span: Span, error: BaseException | None) -> None:
    """Record the outcome of a request on the span of a server, of which, as OpenTelemetry has it, a client's error is none."""
    if not span.is_recording():
        return
    if error is None:
        status = 200
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        status = 499
    else:
        status = error.status if isinstance(error, JinaASGIError) else 500
    if "http.request.method" in getattr(span, "attributes", EMPTY):
        span.set_attribute("http.response.status_code", status)
    if error is not None and status >= 499:
        record(span, error)
    elif error is not None:
        span.set_attribute("error.type", class_name(error))


def client_span(protocol: str, endpoint: str, *, streams: bool = False) -> tuple[str, dict[str, Any]]:
    """The name and the attributes of the span of a call that is sent to a server."""
    attributes = {"jina.endpoint": endpoint}
    if protocol == "grpc":
        service, method = _STREAM if streams else _POST
        rpc = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        return f"{service}/{method}", {**attributes, **rpc}
    if protocol == "http":
        return f"POST {endpoint}", {**attributes, "http.request.method": "POST"}
    return f"{protocol} {endpoint}", attributes


_POST = ("jina.JinaSingleDataRequestRPC", "process_single_data")
_STREAM = ("jina.JinaSingleDocumentRequestRPC", "stream_doc")


async def stream_in(
    span: Span,
    steps_of: Callable[[A], AsyncGenerator[T, None]],
    argument: A,
    *,
    context: TraceContext | None = None,
    ends: bool = True,
) -> AsyncGenerator[T, None]:
    """Yield the documents of a stream, each step with the span as the current one; count them, and mark the first one.

    Between steps the span is not current. A span that a step leaves open, as a user's generator may, is current in the
    next step.

    Args:
        span: the span.
        steps_of: begins the stream, within the context.
        argument: of `steps_of`.
        context: the context of the steps; None: the current one, with the span.
        ends: the span ends with the stream, and has its error.
    """
    inside, count = context or set_span_in_context(span), 0
    steps: AsyncGenerator[T, None] | None = None
    try:
        while True:
            token = attach(inside)
            try:
                steps = steps or steps_of(argument)
                docs: Any = await anext(steps, _END)
            finally:
                inside = get_current()
                detach(token)
            if docs is _END:
                return
            if not count:
                span.add_event("first document")
            count += 1
            yield docs
    except BaseException as error:
        if ends:
            record(span, error)
        raise
    finally:
        if steps is not None:
            token = attach(inside)
            try:
                await steps.aclose()
            finally:
                detach(token)
        span.set_attribute("jina.documents.streamed", count)
        if ends:
            span.end()
