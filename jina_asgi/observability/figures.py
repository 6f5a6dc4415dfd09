"""The figures of this process: one plain object for each combination of a metric and its label values.

The code that counts keeps the object and changes it, which takes a fraction of a microsecond. `figure_file` writes them for the
other processes of the server.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from jina_asgi.observability.metrics import Metric

#: What identifies a figure in all processes: the name of its metric, and the label values.
Key = tuple[str, tuple[str, ...]]


class Figure:
    """A counter or a gauge: its `value` is changed by the code that counts."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    @property
    def numbers(self) -> Sequence[float]:
        """What is written for other processes."""
        return (self.value,)

    def reset(self) -> None:
        self.value = 0.0


class Histogram:
    """The number of observed values in each bucket, the last of which has no bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.reset()

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def numbers(self) -> Sequence[float]:
        """The buckets' counts, then the sum."""
        return (*self.counts, self.total)

    def reset(self) -> None:
        self.counts, self.total = [0] * (len(self.bounds) + 1), 0.0


class Figures:
    """The figures of one process, in the order in which they were first asked for; safe to ask from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Key, Figure | Histogram] = {}

    def figure(self, metric: Metric, *labels: str) -> Figure:
        """The counter or gauge with these label values."""
        found = self._find(metric, labels)
        assert isinstance(found, Figure)
        return found

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram with these label values."""
        found = self._find(metric, labels)
        assert isinstance(found, Histogram)
        return found

    def __getitem__(self, key: Key) -> Figure:
        found = self._kept[key]
        assert isinstance(found, Figure)
        return found

    def _find(self, metric: Metric, labels: tuple[str, ...]) -> Figure | Histogram:
        assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}, got {labels}"
        with self._lock:
            found = self._kept.get((metric.name, labels))
            if found is None:
                found = Histogram(metric.buckets) if metric.kind == "histogram" else Figure()
                self._kept[metric.name, labels] = found
            return found

    def since(self, count: int) -> list[tuple[Key, Figure | Histogram]]:
        """The figures without the first `count` ones."""
        with self._lock:
            return list(self._kept.items())[count:]

    def reset(self) -> None:
        """Set all to zero, in a forked child: the counts are its parent's."""
        self._lock = threading.Lock()  # another thread of the parent may hold it
        for _, figure in self:
            figure.reset()

    def __iter__(self) -> Iterator[tuple[Key, Figure | Histogram]]:
        return iter(self.since(0))


#: Those of this process.
FIGURES = Figures()
os.register_at_fork(after_in_child=FIGURES.reset)
