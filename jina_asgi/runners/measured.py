"""A wrapper that measures the answered calls of a Deployment or a Flow: documents, the time of each node, streams."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from jina_asgi.observability.figures import FIGURES, Histogram
from jina_asgi.observability.metrics import (
    DOCUMENTS,
    NODE_SECONDS,
    OTHER,
    STREAM_DOCUMENTS,
    STREAM_FIRST,
    STREAM_INTERVAL,
)
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.types import Call, Docs, Result, Runner, resolve


class MeasuredRunner(Wrapper):
    """Measures calls by endpoint.

    Args:
        inner: the Runner that answers.
        deployment: its name in metrics.
    """

    def __init__(self, inner: Runner, deployment: str) -> None:
        super().__init__(inner)
        self._deployment = deployment
        self._measures: dict[str, _Measures] = {}

    async def call(self, call: Call, /) -> Result:
        result = await self.inner.call(call)
        measures = self._measures.get(call.endpoint) or self._of(call.endpoint)
        measures.documents.value += len(call.docs)
        trail = result.trail
        if len(trail) > 1:  # the last one of a name is the outermost: a pool's host and its worker have the same
            trail = tuple({step.name: step for step in trail}.values())
        for step in trail:
            measures.node(step.name).observe(step.end - step.start)
        return result

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        measures, last, figure = self._of(call.endpoint), time.perf_counter(), None
        async with aclosing(self.inner.stream(call)) as steps:
            async for docs in steps:
                now = time.perf_counter()
                figure = measures.first if figure is None else measures.interval
                figure.observe(now - last)
                measures.streamed.value += 1
                last = now
                yield docs

    def _of(self, name: str) -> _Measures:
        endpoint = resolve(self.endpoints, name)
        label = OTHER if endpoint is None else endpoint.name
        found = self._measures.get(label)
        if found is None:
            found = self._measures[label] = _Measures(self._deployment, label)
        return found


class _Measures:
    """The figures of one endpoint."""

    __slots__ = ("_labels", "_nodes", "documents", "first", "interval", "streamed")

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._nodes: dict[str, Histogram] = {}
        self.documents, self.streamed = FIGURES.figure(DOCUMENTS, *labels), FIGURES.figure(STREAM_DOCUMENTS, *labels)
        self.first = FIGURES.histogram(STREAM_FIRST, *labels)
        self.interval = FIGURES.histogram(STREAM_INTERVAL, *labels)

    def node(self, name: str) -> Histogram:
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = FIGURES.histogram(NODE_SECONDS, *self._labels, name)
        return found
