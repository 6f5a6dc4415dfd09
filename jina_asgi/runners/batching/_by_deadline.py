"""The default order of queued items: one queue for each key, the earliest deadline first.

`LaneOrder` orders items the same way if it is given no buckets, priorities or tenants, but takes 1.6 to 2.5 times as long
for each item (with 1 and with 200 of them in the queue), which is why this one is kept beside it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from jina_asgi.runners.batching._items import SLACK, Batch, Bounds, Item


@dataclass(slots=True, eq=False)
class KeyQueue:
    """The items of one key: a heap; cancelled items are removed when they reach the top."""

    key: Hashable
    heap: list[tuple[float, int, Item]] = field(default_factory=list)
    size: int = 0
    cost: float = 0.0

    def head(self) -> Item | None:
        heap = self.heap
        while heap and heap[0][2].state != "queued":
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def sweep(self) -> None:
        if len(self.heap) > 2 * self.size + SLACK:
            self.heap = [entry for entry in self.heap if entry[2].state == "queued"]
            heapq.heapify(self.heap)


class DeadlineOrder:
    """Orders items by key and deadline. `LaneOrder` has the same methods."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._windowed = bounds.gather == "window"
        self._queues: dict[Hashable, KeyQueue] = {}
        #: For every queue an entry no later than its head's; stale entries are removed when they reach the top.
        self._heads: list[tuple[float, int, KeyQueue]] = []
        self._full: dict[KeyQueue, None] = {}
        self._arrivals: deque[Item] = deque()  # used for windows only
        self.cap = bounds.max_items
        self.size = 0

    def push(self, item: Item) -> None:
        """Queue a new item."""
        queue = self._queues.get(item.key)
        if queue is None:
            queue = self._queues[item.key] = KeyQueue(item.key)
        entry = (item.deadline, item.order, item)
        heapq.heappush(queue.heap, entry)
        if queue.heap[0] is entry:
            self._list(item, queue)
        queue.size += 1
        queue.cost += item.cost
        self.size += 1
        self._update_full(queue)
        if self._windowed:
            self._arrivals.append(item)

    def removed(self, item: Item) -> None:
        """Forget an item that waits no more; its state says so already."""
        queue = self._queues[item.key]
        self._forget(queue, item)
        queue.sweep()
        if len(self._arrivals) > 2 * self.size + SLACK:
            self._arrivals = deque(item for item in self._arrivals if item.state == "queued")

    def expire(self, now: float) -> list[Item]:
        """Remove and return expired items; checks only the most urgent."""
        expired: list[Item] = []
        while (top := self._top()) is not None and top[0].deadline <= now:
            item, queue = top
            item.state = "expired"
            self._forget(queue, item)
            expired.append(item)
        return expired

    def take(self, now: float, *, idle: bool) -> Batch | None:
        """Return the batch to run next, if any: any batch for an idle slot, else a full one."""
        queue = self._choose(now, idle)
        return None if queue is None else self._form_batch(queue)

    def wake(self, *, idle: bool) -> float:
        """Return when an item expires, or a window closes while a slot is idle."""
        top = self._top()
        moment = math.inf if top is None else top[0].deadline
        if self._windowed and idle and (closes := self._closes()) is not None:
            moment = min(moment, closes)
        return moment

    def resize(self, cap: int) -> None:
        """Set the most items of a batch."""
        self.cap = cap
        for queue in self._queues.values():
            self._update_full(queue)

    def drop(self) -> list[Item]:
        """Remove and return all waiting items."""
        left = [entry[2] for queue in self._queues.values() for entry in queue.heap if entry[2].state == "queued"]
        for waiting in (self._queues, self._heads, self._full, self._arrivals):
            waiting.clear()
        self.size = 0
        return left

    def _list(self, item: Item, queue: KeyQueue) -> None:
        heapq.heappush(self._heads, (item.deadline, item.order, queue))
        if len(self._heads) > 2 * len(self._queues) + SLACK:
            heads = ((queue.head(), queue) for queue in self._queues.values())
            self._heads = [(head.deadline, head.order, queue) for head, queue in heads if head is not None]
            heapq.heapify(self._heads)

    def _top(self) -> tuple[Item, KeyQueue] | None:
        """Return the most urgent item and its queue."""
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

    def _forget(self, queue: KeyQueue, item: Item) -> None:
        """Account for an item that left its queue."""
        queue.size -= 1
        queue.cost -= item.cost
        self.size -= 1
        if queue.size:
            self._update_full(queue)
        else:
            del self._queues[queue.key]
            self._full.pop(queue, None)

    def _update_full(self, queue: KeyQueue) -> None:
        """Update the set of queues that fill a batch."""
        bounds = self._bounds
        enough = min(bounds.enough or self.cap, self.cap)
        if queue.size >= enough or queue.cost >= bounds.max_cost or queue.cost >= bounds.enough_cost:
            self._full[queue] = None
        else:
            self._full.pop(queue, None)

    def _choose(self, now: float, idle: bool) -> KeyQueue | None:
        """Return the most urgent queue that may start: any for an idle slot, else (or before its window closes) a full one."""
        top = self._top()
        if top is None or (idle and not self._windowed) or top[1] in self._full:
            return None if top is None else top[1]
        able = list(self._full)
        if idle and (closes := self._closes()) is not None and closes <= now:
            able.append(self._queues[self._arrivals[0].key])
        return min(able, key=_urgency, default=None)

    def _closes(self) -> float | None:
        """Return when the first window closes."""
        arrivals = self._arrivals
        while arrivals and arrivals[0].state != "queued":
            arrivals.popleft()
        return arrivals[0].arrived + self._bounds.window if arrivals else None

    def _form_batch(self, queue: KeyQueue) -> Batch:
        items: list[Item] = []
        cost = 0.0
        while len(items) < self.cap and (item := queue.head()) is not None:
            cost += item.cost
            if items and cost > self._bounds.max_cost:
                break
            heapq.heappop(queue.heap)
            item.state = "batched"
            items.append(item)
            queue.size -= 1
            queue.cost -= item.cost
        self.size -= len(items)
        if (head := queue.head()) is None:
            del self._queues[queue.key]
            self._full.pop(queue, None)
        else:
            self._list(head, queue)
            self._update_full(queue)
        return Batch(queue.key, items)


def _urgency(queue: KeyQueue) -> tuple[float, int]:
    head = queue.head()
    assert head is not None
    return head.deadline, head.order
