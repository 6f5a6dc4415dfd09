"""Wrappers that record spans: of each request, each node of a Flow, each method of an Executor, each call to a server.

`serving/assembly.py` adds them where the option `tracing` is set. In one process the current span is that of OpenTelemetry's
own context; to another process it goes with a call, as W3C's headers.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context

from jina_asgi.observability.tracing import (
    DroppedSpan,
    Tracing,
    client_span,
    current_span,
    record,
    remote_parent,
    stream_in,
    with_trace,
)
from jina_asgi.runners.wrappers import NodeWrapper, Wrapper
from jina_asgi.types import EMPTY, Call, Docs, Result, Runner, resolve

#: Nanoseconds of waiting below which no span is recorded.
SHORT_WAIT = 1_000_000


class TracedRunner(Wrapper):
    """The base of these wrappers."""

    def __init__(self, inner: Runner, tracing: Tracing) -> None:
        super().__init__(inner)
        self._tracing = tracing


class ServingRunner(TracedRunner):
    """The base of the outermost wrapper of a process."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self._tracing.lifespan(), self.inner.lifespan():
            yield


class EntryRunner(ServingRunner):
    """Gives each call a current span: that which is current, else the caller's, else a new one.

    The caller's is in the call's carrier, in its headers, or is its `context.trace`.
    """

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        has_span = is_dropped(call) or current_span() is not None
        return self.inner.call(call) if has_span else self._call_from(call)

    async def _call_from(self, call: Call) -> Result:
        parent = _parent(call)
        if parent is None:
            with self._tracing.span(f"call {call.endpoint}", _attributes(call)):
                return await self.inner.call(call)
        token = attach(parent)
        try:
            return await self.inner.call(call)
        finally:
            detach(token)

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        if current_span() is not None:
            return self.inner.stream(call)
        parent = _parent(call)
        if parent is not None:
            return stream_in(get_current_span(parent), self.inner.stream, call, context=parent, ends=False)
        span = self._tracing.tracer.start_span(f"call {call.endpoint}", attributes=_attributes(call))
        return stream_in(span, self.inner.stream, call)


def is_dropped(call: Call) -> bool:
    """Whether the request of a call is not recorded; this costs less than a look at the current span."""
    return type(call.context.trace) is DroppedSpan


def _parent(call: Call) -> TraceContext | None:
    found: TraceContext | None = call.context.trace
    if found is None or is_dropped(call):
        return remote_parent(call.context.carrier or call.context.headers)
    return found


class RequestRunner(ServingRunner):
    """Records on the current span, which is that of the request, how a stream went."""

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        span = get_current_span()
        if not span.is_recording():
            return self.inner.stream(call)
        return stream_in(span, self.inner.stream, call, context=get_current(), ends=False)


class SpanRunner(TracedRunner):
    """The base of those that record a span of each call, unless it would be dropped."""

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        records = not is_dropped(call) and self._tracing.records
        return self._recorded(call) if records else self.inner.call(call)

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self._recorded_stream(call) if self._tracing.records else self.inner.stream(call)

    @abstractmethod
    async def _recorded(self, call: Call) -> Result: ...

    @abstractmethod
    def _recorded_stream(self, call: Call) -> AsyncGenerator[Docs, None]: ...


class NodeSpanRunner(SpanRunner, NodeWrapper):
    """Records a span of each call to a node of a Flow."""

    def __init__(self, inner: Runner, tracing: Tracing, flow: str, node: str) -> None:
        super().__init__(inner, tracing)
        self._name, self._extra = f"node {node}", {"jina.flow": flow, "jina.node": node}

    async def _recorded(self, call: Call) -> Result:
        with self._tracing.span(self._name, {**self._extra, **_attributes(call)}):
            return await self.inner.call(call)

    def _recorded_stream(self, call: Call) -> AsyncGenerator[Docs, None]:
        span = self._tracing.tracer.start_span(self._name, attributes={**self._extra, **_attributes(call)})
        return stream_in(span, self.inner.stream, call)


class OutgoingRunner(SpanRunner):
    """Records a span of each call to a server elsewhere, which gets the context in its headers."""

    def __init__(self, inner: Runner, tracing: Tracing, protocol: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(HeadersRunner(inner, tracing), tracing)
        self._protocol, self._extra = protocol, attributes

    async def _recorded(self, call: Call) -> Result:
        name, attributes = client_span(self._protocol, call.endpoint)
        with self._tracing.span(name, {**self._extra, **attributes}, SpanKind.CLIENT):
            return await self.inner.call(call)

    def _recorded_stream(self, call: Call) -> AsyncGenerator[Docs, None]:
        name, attributes = client_span(self._protocol, call.endpoint, streams=True)
        span = self._tracing.tracer.start_span(name, None, SpanKind.CLIENT, {**self._extra, **attributes})
        return stream_in(span, self.inner.stream, call)


class HeadersRunner(TracedRunner):
    """Sends the context to a server elsewhere, in place of the caller's own."""

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        return self.inner.call(self._sent(call))

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self.inner.stream(self._sent(call))

    def _sent(self, call: Call) -> Call:
        context = msgspec.structs.replace(call.context, headers=with_trace(call.context.headers))
        return msgspec.structs.replace(call, context=context)


class CarryingRunner(HeadersRunner):
    """Sends the context to the next process of this server, beside the caller's headers."""

    def _sent(self, call: Call) -> Call:
        context = msgspec.structs.replace(call.context, carrier=with_trace(EMPTY))
        return msgspec.structs.replace(call, context=context)


class WaitRunner(TracedRunner):
    """Records how long a call waits for a replica; a batch records the waits of its calls itself."""

    def __init__(self, inner: Runner, tracing: Tracing, attributes: Mapping[str, Any]) -> None:
        super().__init__(inner, tracing)
        self._extra = attributes

    def call(self, call: Call, /) -> Coroutine[Any, Any, Result]:
        return self.inner.call(self._timed(call))

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self.inner.stream(self._timed(call))

    def _timed(self, call: Call) -> Call:
        if call.on_begin is not None:
            return call
        since, parent = time.time_ns(), get_current()

        def begin() -> Docs:
            waited(self._tracing, since, parent, self._extra)
            return call.docs

        return msgspec.structs.replace(call, on_begin=begin)


def waited(tracing: Tracing, since: int, parent: TraceContext, attributes: Mapping[str, Any]) -> None:
    """Record a wait in a queue that ends now, unless it was short; `since` is in nanoseconds since the epoch."""
    now = time.time_ns()
    if now - since >= SHORT_WAIT:
        tracing.tracer.start_span("queue", parent, start_time=since, attributes=attributes).end(now)


class MethodRunner(SpanRunner):
    """Records the span of an Executor's method, named by the endpoint, from the moment its work begins."""

    def __init__(self, inner: Runner, tracing: Tracing, attributes: Mapping[str, Any]) -> None:
        super().__init__(inner, tracing)
        self._extra = attributes

    async def _recorded(self, call: Call) -> Result:
        method = _MethodSpan(self._tracing, call, self._extra)
        found = resolve(self.endpoints, call.endpoint)
        try:
            return await self.inner.call(msgspec.structs.replace(call, on_begin=method.begin))
        except BaseException as error:
            method.fail(error)
            raise
        finally:
            method.end(here=found is not None and found.concurrent)

    def _recorded_stream(self, call: Call) -> AsyncGenerator[Docs, None]:
        attributes = {**self._extra, **_attributes(call)}
        span = self._tracing.tracer.start_span(call.endpoint, attributes=attributes)
        return stream_in(span, self.inner.stream, call)


class _MethodSpan:
    """The span of one call's method: begun in the thread, or on the loop, where the method runs."""

    __slots__ = ("_attributes", "_call", "_since", "_span", "_token", "_tracing")

    def __init__(self, tracing: Tracing, call: Call, attributes: Mapping[str, Any]) -> None:
        self._tracing, self._call, self._attributes = tracing, call, attributes
        self._since = time.time_ns()
        self._span: Span | None = None
        self._token: Any = None

    def begin(self) -> Docs:
        """Begin the call, and the span, which is current from now on in the thread's job, or in the call's own task."""
        call = self._call
        docs = call.begin()
        parent = get_current()
        if current_span() is None and call.context.trace is not None:  # that of a batch, which begins now
            parent = call.context.trace
        waited(self._tracing, self._since, parent, self._attributes)
        attributes = {**self._attributes, "jina.documents": len(docs)}
        self._span = self._tracing.tracer.start_span(call.endpoint, parent, attributes=attributes)
        self._token = attach(set_span_in_context(self._span, parent))
        return docs

    def fail(self, error: BaseException) -> None:
        if self._span is not None:
            record(self._span, error)

    def end(self, *, here: bool) -> None:
        """End the span. `here`: the method ran in this task, where the span is no longer current from now on."""
        if self._span is not None:
            self._span.end()
            if here:
                detach(self._token)


def _attributes(call: Call) -> dict[str, Any]:
    return {"jina.endpoint": call.endpoint, "jina.documents": len(call.docs)}
