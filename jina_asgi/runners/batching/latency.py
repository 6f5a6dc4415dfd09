"""Keeps a latency target: refuses calls that would miss it, and adapts the batch size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jina_asgi.errors import Overloaded
from jina_asgi.runners.batching._by_lane import LaneOrder
from jina_asgi.runners.batching._items import Batch, Bounds, Item
from jina_asgi.runners.batching._kernel import BatchKernel
from jina_asgi.runners.batching._latency import LatencyTarget
from jina_asgi.runners.batching.waiters import QueuedItem

_CHANGED = 0.02  # relative change of the batch load from which on the queue is updated


class LatencyController:
    """Keeps the latency target of one queue.

    Args:
        target: seconds.
        bounds: the limits of a batch; must have lanes.
        slots: batches that run at once.
    """

    def __init__(self, target: float, bounds: Bounds, slots: int) -> None:
        assert bounds.lanes is not None
        self._target, self._slots = LatencyTarget(target, bounds.max_items, slots), slots
        self._padded, self._by_arrival = bounds.lanes.padded, bounds.lanes.by_arrival
        self._applied = math.inf

    def admit(self, items: Sequence[QueuedItem], now: float, kernel: BatchKernel, running: Iterable[Batch]) -> None:
        """Set the latest start of new items; a call that finds a free slot is always admitted.

        Raises:
            Overloaded: the first item could not be answered in time. With priorities or tenants, which may overtake,
                that is decided only once it has waited too long.
        """
        target, order = self._target, kernel.order
        assert isinstance(order, LaneOrder)
        load = sum(item.cost for item in items)
        budget = target.budget(load)
        for item in items:
            item.budget = budget
        if not kernel.queued and kernel.running < self._slots:
            return
        left = min((self._left(batch, now) for batch in running), default=0.0) if kernel.running >= self._slots else 0.0
        expected = target.expected(min(load, target.max_load), order.cost, left)
        if self._by_arrival and expected > target.aim:
            raise self.refusal(expected - target.aim)
        for item in items:
            item.latest_start = now + target.latest_start(item.cost, budget)

    def refusal(self, after: float | None = None) -> Overloaded:
        """Return the error of a call that cannot be answered in time."""
        after = self._target.times.seconds_for(self._target.max_load) if after is None else after
        return Overloaded(
            f"this cannot be answered within the latency target of {self._target.target * 1000:g} ms; try again later",
            retry_after=max(after, 0.001),
            server_wide=False,
        )

    def batch_ended(self, batch: Batch, ran: Sequence[QueuedItem], now: float, kernel: BatchKernel) -> None:
        """Record that a batch was answered."""
        target = self._target
        target.batch_ended(self._load(ran), len(ran), now - batch.began)
        if bound := [item for item in ran if item.state == "answered" and item.budget < math.inf]:
            target.answered(sum(now - item.arrived > item.budget for item in bound), len(bound))
        if abs(target.max_load - self._applied) > _CHANGED * target.max_load:
            self._applied = target.max_load
            assert isinstance(kernel.order, LaneOrder)
            kernel.order.limit(target.max_load, target.window)

    def status(self) -> dict[str, Any]:
        """Return the metrics."""
        target = self._target
        return {
            "target_ms": target.target * 1000,
            "aim_ms": round(target.aim * 1000, 3),
            "batch_cost": round(target.max_load, 3) if target.times.is_known else None,
            "batch_ms": round(target.times.seconds_for(target.max_load) * 1000, 3) if target.times.is_known else None,
        }

    def _left(self, batch: Batch, now: float) -> float:
        took = self._target.times.seconds_for(self._load(batch.items))
        return took if batch.began == math.inf else max(took - (now - batch.began), 0.0)

    def _load(self, items: Sequence[Item]) -> float:
        if self._padded:
            return max(item.cost for item in items) * len(items)
        return sum(item.cost for item in items)
