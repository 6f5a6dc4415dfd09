"""What a process measures besides requests: its batches, the statuses of its Runners, the delay of its event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jina_asgi.observability._statuses import figures_of
from jina_asgi.observability.figures import FIGURES, Key
from jina_asgi.observability.metrics import BATCH_ITEMS, BATCH_SECONDS, LOOP_LAG, METRICS, MONITORED, QUEUE_SECONDS

_TICK = 0.25  # seconds


class BatchMeasures:
    """Measures the batches of one endpoint."""

    __slots__ = ("_items", "_seconds", "_waits")

    def __init__(self, deployment: str, endpoint: str) -> None:
        self._items = FIGURES.histogram(BATCH_ITEMS, deployment, endpoint)
        self._waits = FIGURES.histogram(QUEUE_SECONDS, deployment, endpoint)
        self._seconds = FIGURES.histogram(BATCH_SECONDS, deployment, endpoint)

    def began(self, waits: Sequence[float]) -> None:
        """A batch begins, whose documents have waited so many seconds."""
        self._items.observe(len(waits))
        for waited in waits:
            self._waits.observe(waited)

    def ended(self, seconds: float) -> None:
        """A batch has been answered."""
        self._seconds.observe(seconds)


def monitored(runtime: str, name: str, documentation: str, seconds: float) -> None:
    """Count what an Executor has timed, in any thread."""
    histogram = FIGURES.histogram(MONITORED, name, documentation, runtime)
    with _monitoring:
        histogram.observe(seconds)


_monitoring = threading.Lock()
_GAUGES = {metric.name for metric in METRICS if metric.kind == "gauge"}


class Statuses:
    """Sets the figures that are in the statuses of this process's Runners.

    A status counts from zero when its Runner is made: what it has counted more than at the last look is added.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all, in a forked child."""
        self._lock = threading.Lock()
        self._sources: dict[object, _Source] = {}
        self._gauges: set[Key] = set()

    @contextmanager
    def follow(self, runner: object, deployment: str, status: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        """Look at the status of a Runner until the end of the block; a Runner that is followed already counts once."""
        with self._lock:
            source = self._sources.setdefault(runner, _Source(deployment, status))
            source.users += 1
        try:
            yield
        finally:
            self.look()  # for the last time
            with self._lock:
                source.users -= 1
                if not source.users:
                    del self._sources[runner]
            self.look()

    def look(self) -> None:
        """Bring all figures up to date."""
        with self._lock:
            gauges = Counter[Key]()
            for source in self._sources.values():
                now, before = Counter[Key](), source.counted
                for metric, labels, number in figures_of(source.deployment, source.status()):
                    FIGURES.figure(metric, *labels)  # there from the first look on
                    now[metric.name, labels] += number  # type: ignore[assignment]  # a Counter of numbers
                for key, number in now.items():
                    if key[0] in _GAUGES:
                        gauges[key] += number
                    else:
                        FIGURES[key].value += number - before[key] if number >= before[key] else number
                        before[key] = number
            for key in self._gauges | gauges.keys():
                FIGURES[key].value = gauges[key]
            self._gauges = set(gauges)


class _Source:
    """A followed Runner, and what its status had counted at the last look."""

    def __init__(self, deployment: str, status: Callable[[], Mapping[str, Any]]) -> None:
        self.deployment, self.status, self.users = deployment, status, 0
        self.counted = Counter[Key]()


STATUSES = Statuses()
os.register_at_fork(after_in_child=STATUSES.reset)


class LoopLag:
    """Measures how late an event loop is.

    Args:
        process: "worker" or "host".
    """

    def __init__(self, process: str) -> None:
        self._figure = FIGURES.figure(LOOP_LAG, process)
        self._longest = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin on the running loop."""
        self._due = time.monotonic() + _TICK
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def stop(self) -> None:
        """End; on the same loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._figure.value = 0.0

    def show(self) -> None:
        """Set the figure to the longest delay since it was last set, the current one included."""
        self._longest, longest = 0.0, self._longest
        self._figure.value = max(longest, time.monotonic() - self._due, 0.0)

    def _tick(self) -> None:
        self._longest = max(self._longest, time.monotonic() - self._due)
        self.start()
