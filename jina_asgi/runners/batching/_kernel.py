"""Decides when a batch starts and which items are in it: pure, with time as an argument.

Idle first: an idle slot takes what is there at once, so batches form only while slots are busy. With
`gather="window"` a batch starts when it is full or its oldest item has waited `window` seconds, as in Jina.

    push ─▶ queued ─step─▶ batched ─began─▶ running ─done──▶ answered
              │ cancel, deadline │             └─failed─▶ again, in halves, or failed
              ▼                  ▼
       cancelled or expired: never runs
Every item ends in exactly one of: answered, failed, expired, cancelled, abandoned (cancelled while it ran). A batch
never mixes keys. A step takes logarithmic time in the number of queued items.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable

from jina_asgi.runners.batching._by_deadline import DeadlineOrder
from jina_asgi.runners.batching._by_lane import LaneOrder
from jina_asgi.runners.batching._items import Batch, Bounds, Decisions, FailureKind, Item


class BatchKernel:
    """The queue of one endpoint: items in, batches out.

    Args:
        bounds: the limits of a batch.
        slots: how many batches run at once.
        ahead: how many more full batches may be started, so that a slot never waits for its next.
    """

    def __init__(self, bounds: Bounds, slots: int = 1, ahead: int = 1) -> None:
        self.bounds, self._slots, self._ahead = bounds, slots, ahead
        #: The queued items in their order.
        self.order: DeadlineOrder | LaneOrder = DeadlineOrder(bounds) if bounds.lanes is None else LaneOrder(bounds)
        self._again: deque[Batch] = deque()
        self._waiting_again = 0  # items
        self._running: set[Batch] = set()
        self._pushed = 0
        self._fine = 0  # successful batches at the cap since it last changed
        self.bisections = 0

    @property
    def cap(self) -> int:
        """Return the most items of a batch, as learned from failures for lack of memory."""
        return self.order.cap

    @property
    def queued(self) -> int:
        """Return the number of waiting items, those of halved batches included."""
        return self.order.size + self._waiting_again

    @property
    def running(self) -> int:
        """Return the number of started batches."""
        return len(self._running)

    def is_running(self, batch: Batch) -> bool:
        """Whether a batch was started, and neither answered nor failed."""
        return batch in self._running

    def fits(self, cost: float) -> bool:
        """Whether an item of this cost is within the budget of a batch."""
        return cost <= self.bounds.max_cost

    def push(self, now: float, item: Item) -> None:
        """Queue a new item."""
        self._pushed += 1
        item.arrived, item.order, item.state = now, self._pushed, "queued"
        self.order.push(item)

    def cancel(self, item: Item) -> bool:
        """Cancel an item whose caller has left; whether it was waiting, and will not run."""
        was = item.state
        if was not in ("queued", "again", "batched"):
            item.state = "abandoned" if was == "running" else was
            return False
        item.state = "cancelled"
        if was == "queued":
            self.order.removed(item)
        elif was == "again":
            self._waiting_again -= 1
        return True

    def step(self, now: float) -> Decisions:
        """Return the batches to start now, the expired items, and the next wake-up."""
        expired = self._expire(now)
        start: list[Batch] = []
        while (batch := self._next(now)) is not None:
            self._running.add(batch)
            start.append(batch)
        return Decisions(start, expired, self._wake())

    def began(self, batch: Batch, now: float) -> list[Item]:
        """Begin a batch: return its items without those cancelled or expired since it was formed.

        Expired items stay in `batch.items` with the state "expired", for the caller to fail.
        """
        for item in batch.items:
            if item.state == "batched":
                item.state = "expired" if item.deadline <= now or item.latest_start <= now else "running"
        return [item for item in batch.items if item.state == "running"]

    def done(self, batch: Batch) -> list[Item]:
        """End an answered batch: return the items to answer."""
        self._running.discard(batch)
        self._grow(batch)
        answered = [item for item in batch.items if item.state == "running"]
        for item in answered:
            item.state = "answered"
        return answered

    def failed(self, batch: Batch, kind: FailureKind) -> list[Item]:
        """End a failed batch: return the items whose failure is final; the others are queued again, in halves."""
        self._running.discard(batch)
        ran = sum(item.state in ("running", "abandoned") for item in batch.items)
        items = [item for item in batch.items if item.state == "running"]
        if kind is FailureKind.MEMORY:
            self._learn(min(self.cap, max(1, ran // 2)))
        if kind is FailureKind.DEATH:
            return self._after_death(batch, items)
        again = kind in (FailureKind.MEMORY, FailureKind.REFUSED) or (
            kind is FailureKind.POISON and self.bounds.idempotent
        )
        if not again or ran <= 1:
            return _final(items)
        if kind is not FailureKind.MEMORY:
            self.bisections += 1
        middle = (len(items) + 1) // 2
        self._run_again(batch.key, [items[middle:], items[:middle]])
        return []

    def _after_death(self, batch: Batch, items: list[Item]) -> list[Item]:
        """Queue each item alone, so that a deadly one affects no other; an item fails after two deaths."""
        if not self.bounds.idempotent:
            return _final(items)
        for item in items:
            item.deaths += 1
        self._run_again(batch.key, [[item] for item in reversed(items) if item.deaths < 2])
        return _final([item for item in items if item.deaths >= 2])

    def _run_again(self, key: Hashable, parts: list[list[Item]]) -> None:
        """Queue each part as a batch before all others, the last part first."""
        for part in filter(None, parts):
            for item in part:
                item.state = "again"
            self._again.appendleft(Batch(key, part, min(item.deadline for item in part)))
            self._waiting_again += len(part)

    def drop(self) -> list[Item]:
        """End serving: return every waiting item, for the caller to fail."""
        left = self.order.drop()
        left += [item for batch in self._again for item in batch.items if item.state == "again"]
        for item in left:
            item.state = "failed"
        self._again.clear()
        self._waiting_again = 0
        return left

    def _expire(self, now: float) -> list[Item]:
        """Remove and return expired items."""
        expired = self.order.expire(now)
        for batch in self._again:
            if batch.deadline <= now:
                late = [item for item in batch.items if item.state == "again" and item.deadline <= now]
                for item in late:
                    item.state = "expired"
                self._waiting_again -= len(late)
                expired += late
                batch.items = [item for item in batch.items if item.state == "again"]
                batch.deadline = min((item.deadline for item in batch.items), default=math.inf)
        return expired

    def _next(self, now: float) -> Batch | None:
        """Return the batch to start now, if any. Halved batches go first, whole, and never ahead."""
        idle = self._slots - len(self._running)
        if idle <= -self._ahead:
            return None
        while self._again:
            if idle <= 0:
                return None
            batch = self._again.popleft()
            batch.items = [item for item in batch.items if item.state == "again"]
            for item in batch.items:
                item.state = "batched"
            self._waiting_again -= len(batch.items)
            if batch.items:
                return batch
        return self.order.take(now, idle=idle > 0)

    def _wake(self) -> float | None:
        """Return when an item expires, or a window closes while a slot is idle."""
        moment = self.order.wake(idle=len(self._running) < self._slots)
        moment = min((batch.deadline for batch in self._again), default=moment) if self._again else moment
        return None if moment == math.inf else moment

    def _learn(self, cap: int) -> None:
        self.order.resize(cap)
        self._fine = 0

    def _grow(self, batch: Batch) -> None:
        """Raise a learned cap by an eighth after 32 successful batches that filled it."""
        if self.cap < self.bounds.max_items and len(batch.items) >= self.cap:
            self._fine += 1
            if self._fine >= 32:
                self._learn(min(self.bounds.max_items, self.cap + max(1, self.cap // 8)))


def _final(items: list[Item]) -> list[Item]:
    for item in items:
        item.state = "failed"
    return items
