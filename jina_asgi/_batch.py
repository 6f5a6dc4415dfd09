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

import heapq
import math
from collections import deque
from collections.abc import Hashable

from jina_asgi._batch_items import SLACK, Batch, Bounds, Decisions, Fault, Item, Queue


class BatchKernel:
    """The queue of one endpoint: items in, batches out.

    Args:
        bounds: what a batch may hold.
        slots: how many batches run at once.
        ahead: how many full batches may be handed over beside those, so that a slot never waits for its next.
    """

    def __init__(self, bounds: Bounds, slots: int = 1, ahead: int = 1) -> None:
        self.bounds, self._slots, self._ahead = bounds, slots, ahead
        self._windowed = bounds.gather == "window"
        self._queues: dict[Hashable, Queue] = {}
        #: For every queue an entry no later than its head's; entries of those gone go when they come to the top.
        self._heads: list[tuple[float, int, Queue]] = []
        self._full: dict[Queue, None] = {}
        self._arrivals: deque[Item] = deque()  # kept for windows alone
        self._again: deque[Batch] = deque()
        self._running: set[Batch] = set()
        self._order = 0
        self._fine = 0  # batches at the cap that went well since it last changed
        self.cap = bounds.max_items
        self.queued = 0  #: Items that wait, those of halved batches among them.
        self.bisections = 0

    @property
    def running(self) -> int:
        """Batches that run or are handed over."""
        return len(self._running)

    def fits(self, cost: float) -> bool:
        """Whether an item of this cost is within the budget of a batch."""
        return cost <= self.bounds.max_cost

    def push(self, now: float, item: Item) -> None:
        """A new item waits."""
        queue = self._queues.get(item.key)
        if queue is None:
            queue = self._queues[item.key] = Queue(item.key)
        self._order += 1
        item.arrived, item.order, item.state = now, self._order, "queued"
        entry = (item.deadline, item.order, item)
        heapq.heappush(queue.heap, entry)
        if queue.heap[0] is entry:
            self._list(item, queue)
        queue.size += 1
        queue.cost += item.cost
        self.queued += 1
        self._note(queue)
        if self._windowed:
            self._arrivals.append(item)

    def cancel(self, item: Item) -> bool:
        """Nobody waits for the item; True when it was waiting, and will not run."""
        was = item.state
        if was not in ("queued", "again", "batched"):
            item.state = "abandoned" if was == "running" else was
            return False
        item.state = "cancelled"
        if was == "queued":
            queue = self._queues[item.key]
            self._took(queue, item)
            queue.sweep()
            if len(self._arrivals) > 2 * self.queued + SLACK:
                self._arrivals = deque(item for item in self._arrivals if item.state == "queued")
        elif was == "again":
            self.queued -= 1
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
                item.state = "expired" if item.deadline <= now else "running"
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
            self.queued += len(part)

    def drop(self) -> list[Item]:
        """Serving ends: every item that waits, to be told so."""
        left = [entry[2] for queue in self._queues.values() for entry in queue.heap if entry[2].state == "queued"]
        left += [item for batch in self._again for item in batch.items if item.state == "again"]
        for item in left:
            item.state = "failed"
        for waiting in (self._queues, self._heads, self._full, self._arrivals, self._again):
            waiting.clear()
        self.queued = 0
        return left

    def _list(self, item: Item, queue: Queue) -> None:
        heapq.heappush(self._heads, (item.deadline, item.order, queue))
        if len(self._heads) > 2 * len(self._queues) + SLACK:
            heads = ((queue.head(), queue) for queue in self._queues.values())
            self._heads = [(head.deadline, head.order, queue) for head, queue in heads if head is not None]
            heapq.heapify(self._heads)

    def _top(self) -> tuple[Item, Queue] | None:
        """The most urgent of all that are queued."""
        while self._heads:
            _, order, queue = self._heads[0]
            head = queue.head()
            if head is None:
                heapq.heappop(self._heads)
            elif head.order == order:
                return head, queue
            else:
                heapq.heapreplace(self._heads, (head.deadline, head.order, queue))
        return None

    def _took(self, queue: Queue, item: Item) -> None:
        """The item is in its queue no more."""
        queue.size -= 1
        queue.cost -= item.cost
        self.queued -= 1
        if queue.size:
            self._note(queue)
        else:
            del self._queues[queue.key]
            self._full.pop(queue, None)

    def _note(self, queue: Queue) -> None:
        """Keep the list of queues that fill a batch."""
        bounds = self.bounds
        enough = min(bounds.enough or self.cap, self.cap)
        if queue.size >= enough or queue.cost >= bounds.max_cost or queue.cost >= bounds.enough_cost:
            self._full[queue] = None
        else:
            self._full.pop(queue, None)

    def _expire(self, now: float) -> list[Item]:
        """Take out what is too late: only the most urgent is looked at."""
        expired: list[Item] = []
        while (top := self._top()) is not None and top[0].deadline <= now:
            item, queue = top
            item.state = "expired"
            self._took(queue, item)
            expired.append(item)
        for batch in self._again:
            if batch.deadline <= now:
                late = [item for item in batch.items if item.state == "again" and item.deadline <= now]
                for item in late:
                    item.state = "expired"
                self.queued -= len(late)
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
            self.queued -= len(batch.items)
            if batch.items:
                return batch
        queue = self._chosen(now, idle > 0)
        return None if queue is None else self._formed(queue)

    def _chosen(self, now: float, idle: bool) -> Queue | None:
        """The most urgent queue that may start: any where a slot is idle, else (or before its window closes) a full one."""
        top = self._top()
        if top is None or (idle and not self._windowed) or top[1] in self._full:
            return None if top is None else top[1]
        able = list(self._full)
        if idle and (closes := self._closes()) is not None and closes <= now:
            able.append(self._queues[self._arrivals[0].key])
        return min(able, key=_urgency, default=None)

    def _closes(self) -> float | None:
        """When the first of the windows closes."""
        arrivals = self._arrivals
        while arrivals and arrivals[0].state != "queued":
            arrivals.popleft()
        return arrivals[0].arrived + self.bounds.window if arrivals else None

    def _formed(self, queue: Queue) -> Batch:
        items: list[Item] = []
        cost = 0.0
        while len(items) < self.cap and (item := queue.head()) is not None:
            cost += item.cost
            if items and cost > self.bounds.max_cost:
                break
            heapq.heappop(queue.heap)
            item.state = "batched"
            items.append(item)
            queue.size -= 1
            queue.cost -= item.cost
        self.queued -= len(items)
        if (head := queue.head()) is None:
            del self._queues[queue.key]
            self._full.pop(queue, None)
        else:
            self._list(head, queue)
            self._note(queue)
        return Batch(queue.key, items)

    def _wake(self) -> float | None:
        """When something expires, or a window closes over an idle slot."""
        top = self._top()
        moments = [batch.deadline for batch in self._again]
        if top is not None:
            moments.append(top[0].deadline)
        if self._windowed and len(self._running) < self._slots and (closes := self._closes()) is not None:
            moments.append(closes)
        return min((moment for moment in moments if moment < math.inf), default=None)

    def _learn(self, cap: int) -> None:
        self.cap, self._fine = cap, 0
        for queue in self._queues.values():
            self._note(queue)

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


def _urgency(queue: Queue) -> tuple[float, int]:
    head = queue.head()
    assert head is not None
    return head.deadline, head.order
