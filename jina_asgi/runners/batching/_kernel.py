"""When a batch starts, and who is in it: pure decisions, with time as an argument.

Idle first: an idle slot takes what is there at once, so batches form only while slots are busy. With
`gather="window"` a batch starts when it is full or its oldest item has waited `window` seconds, as in Jina.

    push ─▶ queued ─step─▶ batched ─began─▶ running ─done──▶ answered
              │ cancel, deadline │             └─failed─▶ again, in halves, or failed
              ▼                  ▼
       cancelled or expired: never runs
Every item ends in exactly one of: answered, failed, expired, cancelled, abandoned (cancelled while it ran). A batch
never mixes keys. A step costs the logarithm of what is queued: nothing here looks at every item.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable

from jina_asgi.runners.batching._by_deadline import DeadlineOrder
from jina_asgi.runners.batching._by_lane import LaneOrder
from jina_asgi.runners.batching._items import Batch, Bounds, Decisions, Fault, Item


class BatchKernel:
    """The queue of one endpoint: items in, batches out.

    Args:
        bounds: what a batch may hold.
        slots: how many batches run at once.
        ahead: how many full batches may be handed over beside those, so that a slot never waits for its next.
    """

    def __init__(self, bounds: Bounds, slots: int = 1, ahead: int = 1) -> None:
        self.bounds, self._slots, self._ahead = bounds, slots, ahead
        #: What waits, and who of it goes next.
        self.order: DeadlineOrder | LaneOrder = DeadlineOrder(bounds) if bounds.lanes is None else LaneOrder(bounds)
        self._again: deque[Batch] = deque()
        self._waiting_again = 0  # items
        self._running: set[Batch] = set()
        self._pushed = 0
        self._fine = 0  # batches at the cap that went well since it last changed
        self.bisections = 0

    @property
    def cap(self) -> int:
        """Items in a batch at most, as learned from lack of memory."""
        return self.order.cap

    @property
    def queued(self) -> int:
        """Items that wait, those of halved batches among them."""
        return self.order.size + self._waiting_again

    @property
    def running(self) -> int:
        """Batches that run or are handed over."""
        return len(self._running)

    def is_running(self, batch: Batch) -> bool:
        """Whether a batch was handed over and neither answered nor failed."""
        return batch in self._running

    def fits(self, cost: float) -> bool:
        """Whether an item of this cost is within the budget of a batch."""
        return cost <= self.bounds.max_cost

    def push(self, now: float, item: Item) -> None:
        """A new item waits."""
        self._pushed += 1
        item.arrived, item.order, item.state = now, self._pushed, "queued"
        self.order.push(item)

    def cancel(self, item: Item) -> bool:
        """Nobody waits for the item; True when it was waiting, and will not run."""
        was = item.state
        if was not in ("queued", "again", "batched"):
            item.state = "abandoned" if was == "running" else was
            return False
        item.state = "cancelled"
        if was == "queued":
            self.order.left(item)
        elif was == "again":
            self._waiting_again -= 1
        return True

    def step(self, now: float) -> Decisions:
        """What to do now."""
        expired = self._expire(now)
        start: list[Batch] = []
        while (batch := self._next(now)) is not None:
            self._running.add(batch)
            start.append(batch)
        return Decisions(start, expired, self._wake())

    def began(self, batch: Batch, now: float) -> list[Item]:
        """The batch begins to run this moment: its items, less those cancelled or expired since it was formed.

        Those that expired stay in `batch.items` with the state "expired", for the caller to tell.
        """
        for item in batch.items:
            if item.state == "batched":
                item.state = "expired" if item.deadline <= now or item.latest <= now else "running"
        return [item for item in batch.items if item.state == "running"]

    def done(self, batch: Batch) -> list[Item]:
        """The batch was answered: the items to answer."""
        self._running.discard(batch)
        self._grow(batch)
        answered = [item for item in batch.items if item.state == "running"]
        for item in answered:
            item.state = "answered"
        return answered

    def failed(self, batch: Batch, fault: Fault) -> list[Item]:
        """The batch failed: the items whose failure is final; the others wait again, in halves."""
        self._running.discard(batch)
        ran = sum(item.state in ("running", "abandoned") for item in batch.items)
        items = [item for item in batch.items if item.state == "running"]
        if fault is Fault.MEMORY:
            self._learn(min(self.cap, max(1, ran // 2)))
        if fault is Fault.DEATH:
            return self._after_death(batch, items)
        again = fault in (Fault.MEMORY, Fault.REFUSED) or (fault is Fault.POISON and self.bounds.idempotent)
        if not again or ran <= 1:
            return _final(items)
        if fault is not Fault.MEMORY:
            self.bisections += 1
        middle = (len(items) + 1) // 2
        self._run_again(batch.key, [items[middle:], items[:middle]])
        return []

    def _after_death(self, batch: Batch, items: list[Item]) -> list[Item]:
        """Each alone, so that the one that kills takes nobody with it; one that has killed twice never again."""
        if not self.bounds.idempotent:
            return _final(items)
        for item in items:
            item.deaths += 1
        self._run_again(batch.key, [[item] for item in reversed(items) if item.deaths < 2])
        return _final([item for item in items if item.deaths >= 2])

    def _run_again(self, key: Hashable, parts: list[list[Item]]) -> None:
        """Each part is a batch that goes before all others; the last part first."""
        for part in filter(None, parts):
            for item in part:
                item.state = "again"
            self._again.appendleft(Batch(key, part, min(item.deadline for item in part)))
            self._waiting_again += len(part)

    def drop(self) -> list[Item]:
        """Serving ends: every item that waits, to be told so."""
        left = self.order.drop()
        left += [item for batch in self._again for item in batch.items if item.state == "again"]
        for item in left:
            item.state = "failed"
        self._again.clear()
        self._waiting_again = 0
        return left

    def _expire(self, now: float) -> list[Item]:
        """Take out what is too late."""
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
        """The batch to hand over now, if any. Halves go first, whole, and never ahead."""
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
        """When something expires, or a window closes over an idle slot."""
        moment = self.order.wake(idle=len(self._running) < self._slots)
        moment = min((batch.deadline for batch in self._again), default=moment) if self._again else moment
        return None if moment == math.inf else moment

    def _learn(self, cap: int) -> None:
        self.order.resize(cap)
        self._fine = 0

    def _grow(self, batch: Batch) -> None:
        """A cap learned from lack of memory is raised by an eighth after 32 batches that filled it."""
        if self.cap < self.bounds.max_items and len(batch.items) >= self.cap:
            self._fine += 1
            if self._fine >= 32:
                self._learn(min(self.bounds.max_items, self.cap + max(1, self.cap // 8)))


def _final(items: list[Item]) -> list[Item]:
    for item in items:
        item.state = "failed"
    return items
