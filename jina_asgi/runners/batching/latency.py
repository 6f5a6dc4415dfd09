"""Keeps a latency target: refuses whom it would fail, and tells the queue how much a batch may hold just now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jina_asgi.errors import Overloaded
from jina_asgi.runners.batching._by_lane import LaneOrder
from jina_asgi.runners.batching._items import Batch, Bounds, Item
from jina_asgi.runners.batching._kernel import BatchKernel
from jina_asgi.runners.batching._latency import LatencyTarget
from jina_asgi.runners.batching.waiters import Rider

_CHANGED = 0.02  # by how much, of itself, the load of a batch must have changed to tell the queue


class Pace:
    """The latency target of one queue.

    Args:
        target: seconds.
        bounds: what a batch may hold; with lanes.
        slots: batches that run at once.
    """

    def __init__(self, target: float, bounds: Bounds, slots: int) -> None:
        assert bounds.lanes is not None
        self._target, self._slots = LatencyTarget(target, bounds.max_items, slots), slots
        self._padded, self._by_arrival = bounds.lanes.padded, bounds.lanes.by_arrival
        self._told = math.inf

    def admit(self, riders: Sequence[Rider], now: float, kernel: BatchKernel, running: Iterable[Batch]) -> None:
        """Tell riders by when they must begin; a call that finds a free slot may always.

        Raises:
            Overloaded: the first of them could not be answered in time. Where others may be overtaken that is known
                only when they have waited too long.
        """
        target, order = self._target, kernel.order
        assert isinstance(order, LaneOrder)
        load = sum(rider.cost for rider in riders)
        allowed = target.allowed(load)
        for rider in riders:
            rider.allowed = allowed
        if not kernel.queued and kernel.running < self._slots:
            return
        left = min((self._left(batch, now) for batch in running), default=0.0) if kernel.running >= self._slots else 0.0
        expected = target.expected(min(load, target.most), order.cost, left)
        if self._by_arrival and expected > target.aim:
            raise self.refusal(expected - target.aim)
        for rider in riders:
            rider.latest = now + target.latest(rider.cost, allowed)

    def refusal(self, after: float | None = None) -> Overloaded:
        """What is told to whom cannot be answered in time."""
        after = self._target.times.of(self._target.most) if after is None else after
        return Overloaded(
            f"this cannot be answered within the latency target of {self._target.target * 1000:g} ms; try again later",
            retry_after=max(after, 0.001),
            everybody=False,
        )

    def ended(self, batch: Batch, ran: Sequence[Rider], now: float, kernel: BatchKernel) -> None:
        """A batch was answered."""
        target = self._target
        target.ended(self._load(ran), len(ran), now - batch.began)
        if bound := [rider for rider in ran if rider.state == "answered" and rider.allowed < math.inf]:
            target.answered(sum(now - rider.arrived > rider.allowed for rider in bound), len(bound))
        if abs(target.most - self._told) > _CHANGED * target.most:
            self._told = target.most
            assert isinstance(kernel.order, LaneOrder)
            kernel.order.limit(target.most, target.window)

    def status(self) -> dict[str, Any]:
        """The figures."""
        target = self._target
        return {
            "target_ms": target.target * 1000,
            "aim_ms": round(target.aim * 1000, 3),
            "batch_cost": round(target.most, 3) if target.times.known else None,
            "batch_ms": round(target.times.of(target.most) * 1000, 3) if target.times.known else None,
        }

    def _left(self, batch: Batch, now: float) -> float:
        took = self._target.times.of(self._load(batch.items))
        return took if batch.began == math.inf else max(took - (now - batch.began), 0.0)

    def _load(self, items: Sequence[Item]) -> float:
        if self._padded:
            return max(item.cost for item in items) * len(items)
        return sum(item.cost for item in items)
