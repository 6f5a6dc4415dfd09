"""The `Service` of an application whose requests are traced. Imports OpenTelemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from opentelemetry import trace as opentelemetry
from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind

from jina_asgi.observability.tracing import DroppedSpan, Tracing, current_span, record_answer, remote_parent
from jina_asgi.protocols.service import CallerLeft, OpenedCall
from jina_asgi.runners.tracing import RequestRunner
from jina_asgi.serving.service import RunnerService, ServiceCall
from jina_asgi.serving.source import Source
from jina_asgi.settings import AppSettings
from jina_asgi.types import Runner


class TracedService(RunnerService):
    """A service that records a span of each call: one of a server, unless the host's own is there already."""

    def __init__(
        self, source: Source, options: AppSettings, is_reserved: Callable[[str], bool], tracing: Tracing
    ) -> None:
        self._tracing = tracing
        super().__init__(source, options, is_reserved)

    def _wrapped(self, runner: Runner) -> Runner:
        return RequestRunner(runner, self._tracing)

    async def open(
        self,
        name: str,
        headers: Mapping[str, str],
        user: Any = None,
        *,
        deadline: float | None = None,
        method: str = "",
    ) -> OpenedCall:
        span = self._span(name, headers, method)
        if span is None:
            return await super().open(name, headers, user, deadline=deadline, method=method)
        if type(span) is DroppedSpan:
            opened = await super().open(name, headers, user, deadline=deadline, method=method)
            opened.context.trace = span
            return TracedCall(name, opened.runner, opened.context, opened.loop, span=span)
        token = attach(opentelemetry.set_span_in_context(span))
        try:
            opened = await super().open(name, headers, user, deadline=deadline, method=method)
        except BaseException as error:
            record_answer(span, error)
            span.end()
            raise
        finally:
            detach(token)
        return TracedCall(name, opened.runner, opened.context, opened.loop, span=span)

    def _span(self, name: str, headers: Mapping[str, str], method: str) -> Span | None:
        """Begin the span of a call; None if the host has one of its own for it."""
        host = current_span()
        kind = SpanKind.SERVER
        if host is not None and getattr(host, "kind", None) is not SpanKind.CLIENT:  # else the client is in this task
            if method != "websocket":
                return None
            kind = SpanKind.INTERNAL  # the host's is of the whole connection
        parent = None if host is not None else remote_parent(headers)
        title, attributes = _described(self.source.name, name, method)
        if host is None and parent is None:
            return self._tracing.start_trace(title, kind, attributes)
        return self._tracing.tracer.start_span(title, parent, kind, attributes)


@lru_cache(maxsize=1024)  # of calls to known endpoints
def _described(deployment: str, name: str, method: str) -> tuple[str, Mapping[str, str]]:
    """The name and the attributes of the span of a call."""
    attributes = {"jina.endpoint": name, "jina.deployment": deployment}
    service, _, rpc = method.partition("/")
    if rpc:
        return method, {**attributes, "rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc}
    if method != "websocket":
        attributes["http.request.method"] = method
    return f"{method} {name}", {**attributes, "http.route": name}


class TracedCall(ServiceCall):
    """A call with its span, which is the current one within `with`."""

    span: Span = opentelemetry.INVALID_SPAN
    _token: Any = None
    _error: BaseException | None = None

    def __enter__(self) -> Self:
        self._token = attach(opentelemetry.set_span_in_context(self.span))
        return self

    def named(self, endpoint: str) -> None:
        self.span.set_attribute("jina.endpoint", endpoint)

    def failed(self, error: BaseException) -> None:
        self._error = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        detach(self._token)
        if self.span.is_recording():
            self.span.set_attribute("jina.request_id", self.context.request_id)
            error, self._error = error or self._error, None
            record_answer(self.span, asyncio.CancelledError() if isinstance(error, CallerLeft) else error)
            self.span.end()
