"""The figures of a server as prometheus_client renders them: the text format, or OpenMetrics, and a collector for registries."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from jina_asgi.errors import DefinitionError
from jina_asgi.observability._jina import jinas, monitored
from jina_asgi.observability.figure_file import Sums
from jina_asgi.observability.metrics import METRICS, OF_JINA, Metric


class FigureCollector(Collector):
    """Gives prometheus_client the sums of a server.

    Args:
        read: returns them, and blocks for a moment.
    """

    def __init__(self, read: Callable[[], Sums]) -> None:
        self._read = read

    def describe(self) -> Iterable[Family]:
        """All metrics without figures, for a registry that looks for names twice."""
        return [family(metric, ()) for metric in (*METRICS, *OF_JINA)]

    def collect(self) -> Iterable[Family]:
        found: dict[str, dict[tuple[str, ...], list[float]]] = {}
        for (name, labels), numbers in sorted(self._read().items()):
            found.setdefault(name, {})[labels] = numbers
        ours = {metric: found[metric.name] for metric in METRICS if metric.name in found}
        for metric, figures in {**ours, **jinas(found), **monitored(found)}.items():
            yield family(metric, figures.items())


_joined: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()


def join_registry(registry: CollectorRegistry, read: Callable[[], Sums]) -> None:
    """Have a registry of the host's show the metrics, once.

    Raises:
        DefinitionError: it is no registry, or has a metric of the same name.
    """
    if not isinstance(registry, CollectorRegistry):
        raise DefinitionError(f"registry={registry!r}: expected a CollectorRegistry of prometheus_client")
    if registry in _joined:
        return
    try:
        registry.register(FigureCollector(read))
    except ValueError as error:
        raise DefinitionError(f"registry: {error}") from error
    _joined.add(registry)


def family(metric: Metric, found: Iterable[tuple[tuple[str, ...], list[float]]]) -> Family:
    """One metric with its figures."""
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, (*counts, total) in found:
            histogram.add_metric(labels, cumulated(metric.buckets, counts), total)
        return histogram
    made: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        made = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        made = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, (value,) in found:
        made.add_metric(labels, value)
    return made


def cumulated(bounds: Iterable[float], counts: Iterable[float]) -> list[Any]:
    """The buckets as Prometheus has them: each with all that is at or below its bound."""
    cumulative, buckets = 0.0, []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        cumulative += count
        buckets.append((bound, cumulative))
    return buckets


def rendered(read: Callable[[], Sums], accept: str) -> tuple[bytes, str]:
    """The page and its content type, in the format that a scraper accepts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FigureCollector(read))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
