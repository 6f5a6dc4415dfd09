"""The queue of an endpoint with spans: of the wait of each call, and of the batch, with links between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach, create_key, detach, get_current, get_value, set_value
from opentelemetry.trace import Link, Span, get_current_span, set_span_in_context

from jina_asgi.documents.codec import Codec
from jina_asgi.observability.tracing import Tracing, record, with_trace
from jina_asgi.runners.batching.hints import BatchPlan
from jina_asgi.runners.batching.runner import BatchedEndpoint
from jina_asgi.runners.batching.waiters import BatchMembers, Submission
from jina_asgi.types import EMPTY, Call, Context, Docs, Endpoint, Result, Runner

_WAIT = create_key("jina-asgi-wait")


class _Wait:
    """The wait of one call: since when, in nanoseconds since the epoch, and whether it has been recorded."""

    __slots__ = ("is_recorded", "since")

    def __init__(self) -> None:
        self.is_recorded, self.since = False, time.time_ns()


class TracedSubmission(Submission):
    """A submission with the trace context of its caller."""

    __slots__ = ("trace",)

    def __init__(self, count: int, deadline: float, future: asyncio.Future[list[Any]]) -> None:
        super().__init__(count, deadline, future)
        self.trace = get_current()


class TracedEndpoint(BatchedEndpoint):
    """The queue of one endpoint, whose calls have a current span each.

    The batch is a child of the first recorded call in it. It is linked to the calls in it; the waits of these, which are
    children of each call, are linked to the batch.

    Args:
        tracing: makes the spans.
        attributes: those of each span.
        inner, endpoint, plan, options: as for BatchedEndpoint.
    """

    submissions = TracedSubmission

    def __init__(
        self,
        tracing: Tracing,
        attributes: Mapping[str, Any],
        inner: Runner,
        endpoint: Endpoint,
        plan: BatchPlan,
        **options: Any,
    ) -> None:
        super().__init__(inner, endpoint, plan, **options)
        self._tracing, self._attributes = tracing, {**attributes, "jina.endpoint": endpoint.name}
        self._running: dict[BatchMembers, tuple[Span, list[_Wait]]] = {}

    async def call(self, call: Call) -> Result:
        wait, parent = _Wait(), get_current()
        token = attach(set_value(_WAIT, wait))
        try:
            return await super().call(call)
        except BaseException as error:
            if not wait.is_recorded:
                span = self._tracing.tracer.start_span(
                    "queue", parent, start_time=wait.since, attributes=self._attributes
                )
                record(span, error)
                span.end()
            raise
        finally:
            detach(token)

    async def _run(self, members: BatchMembers) -> list[Any]:
        attach(TraceContext())  # in the batch's own task: a span that was current when serving began is not its parent
        try:
            answers = await super()._run(members)
        except BaseException as error:
            self._ended(members, error)
            raise
        self._ended(members)
        return answers

    def _begin(self, reader: Codec, members: BatchMembers, context: Context) -> Docs:
        docs = super()._begin(reader, members, context)
        if members not in self._running:  # else it begins again, in another process
            self._running[members] = self._begun(members)
            span, _ = self._running[members]
            context.trace = set_span_in_context(span, TraceContext())
            context.carrier = with_trace(EMPTY, context.trace)
        return docs

    def _begun(self, members: BatchMembers) -> tuple[Span, list[_Wait]]:
        """Begin the span of a batch, and record the waits of its calls."""
        items, tracer = members.settle(), self._tracing.tracer
        submissions = dict.fromkeys(submission for item in items for submission in item.submissions)
        calls = [cast("TracedSubmission", submission).trace for submission in submissions]
        links = [Link(get_current_span(call).get_span_context()) for call in calls]
        recorded = [call for call, link in zip(calls, links, strict=True) if link.context.trace_flags.sampled]
        size = {"jina.batch.size": len(items), "jina.batch.requests": len(calls)}
        span = tracer.start_span("batch", (recorded or calls)[0], attributes={**self._attributes, **size}, links=links)
        now, to_batch = time.time_ns(), [Link(span.get_span_context())]
        waits = [cast("_Wait", get_value(_WAIT, call)) for call in calls]
        for call, wait in zip(calls, waits, strict=True):
            wait.is_recorded = True
            waited = tracer.start_span(
                "queue", call, start_time=wait.since, links=to_batch, attributes=self._attributes
            )
            waited.end(now)
        return span, waits

    def _ended(self, members: BatchMembers, error: BaseException | None = None) -> None:
        span, waits = self._running.pop(members, (None, []))
        if span is None:
            return
        if error is not None:
            record(span, error)
            for wait in waits:  # they may wait for another batch
                wait.since = time.time_ns()
        span.end()
