"""Orders queued items in lanes: similar costs together, a share for each tenant, higher priorities first in a tenant.

A lane holds items that may share a batch: one key, one bucket of costs and, unless they are mixed, one tenant. A step of
priority is worth a number of seconds of waiting, so that the order of two items never changes: one that came long enough
before goes first, whatever the other's priority. A heap may hold stale entries, and entries that are too early: both are
corrected when they reach the top.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable

from jina_asgi.runners.batching._fair_shares import FairShares
from jina_asgi.runners.batching._items import SLACK, Batch, Bounds, Item

LaneRank = tuple[float, float, int]  # the start of its tenant's turn, its rank, its order: the least goes first


class Lane:
    """Items that may share a batch: a heap for each tenant, and a heap of the tenants."""

    __slots__ = ("bucket", "cost", "gone", "heads", "key", "listed", "longest", "size", "tenants")

    def __init__(self, key: Hashable, bucket: float) -> None:
        self.key, self.bucket = key, bucket
        self.tenants: dict[str, list[tuple[float, int, Item]]] = {}
        self.heads: list[tuple[float, float, int, str]] = []
        self.listed: dict[str, tuple[float, float, int, str]] = {}  # the valid entry of each tenant
        self.size = self.gone = 0
        self.cost = self.longest = 0.0

    def push(self, rank: float, item: Item, shares: FairShares) -> bool:
        """Queue an item; whether it goes first of its tenant."""
        heap = self.tenants.setdefault(item.tenant, [])
        _pop_gone(heap)
        entry = (rank, item.order, item)
        heapq.heappush(heap, entry)
        self.size += 1
        self.cost += item.cost
        self.longest = max(self.longest, item.cost)
        if heap[0] is not entry:
            return False
        self._list((shares.start(item.tenant), rank, item.order, item.tenant))
        return True

    def head(self, shares: FairShares) -> tuple[LaneRank, Item] | None:
        """Return the rank of the first item, and the item."""
        heads = self.heads
        while heads:
            entry = heads[0]
            tenant = entry[3]
            if self.listed.get(tenant) is not entry:
                heapq.heappop(heads)
                continue
            heap = self.tenants[tenant]
            _pop_gone(heap)
            if not heap:
                heapq.heappop(heads)
                del self.tenants[tenant], self.listed[tenant]
                continue
            rank, order, item = heap[0]
            start = shares.start(tenant)
            if (start, rank, order) == entry[:3]:
                return entry[:3], item
            heapq.heappop(heads)
            self._list((start, rank, order, tenant))
        return None

    def removed(self, item: Item) -> None:
        """Forget an item that waits no more; its heap entry is removed at the top, or once many are stale."""
        self.size -= 1
        self.cost -= item.cost
        self.gone += 1
        if self.gone > 2 * self.size + SLACK:
            self.gone = 0
            for tenant, heap in [*self.tenants.items()]:
                heap[:] = [entry for entry in heap if entry[2].state == "queued"]
                heapq.heapify(heap)
                if not heap:
                    del self.tenants[tenant]
                    self.listed.pop(tenant, None)
            self.heads = [*self.listed.values()]
            heapq.heapify(self.heads)

    def _list(self, entry: tuple[float, float, int, str]) -> None:
        self.listed[entry[3]] = entry
        heapq.heappush(self.heads, entry)


class LaneOrder:
    """Orders items in lanes; has the same methods as `DeadlineOrder`."""

    def __init__(self, bounds: Bounds) -> None:
        assert bounds.lanes is not None
        self._bounds, self._lanes_of = bounds, bounds.lanes
        self._windowed, self.window = bounds.gather == "window", bounds.window
        self.shares = FairShares(bounds.lanes.weights)
        self._lanes: dict[tuple[Hashable, float], Lane] = {}
        self._heads: list[tuple[LaneRank, Lane]] = []
        self._deadlines: list[tuple[float, int, Item]] = []
        self._full: dict[Lane, None] = {}
        self._arrivals: deque[Item] = deque()
        self.cap, self.max_load = bounds.max_items, bounds.max_cost
        self.size = 0
        self.cost = 0.0  #: The cost of all waiting items.

    def push(self, item: Item) -> None:
        """Queue a new item."""
        place = (item.key, self._lanes_of.bucket(item.cost))
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(*place)
        self.shares.added(item.tenant)
        if lane.push(self._rank(item), item, self.shares):
            self._list(lane)
        if item.expires < math.inf:
            heapq.heappush(self._deadlines, (item.expires, item.order, item))
        self._arrivals.append(item)
        self.size += 1
        self.cost += item.cost
        self._update_full(lane)
        self._sweep()

    def removed(self, item: Item) -> None:
        """Forget an item that waits no more; its state says so already."""
        self._forget(item)
        self._sweep()

    def expire(self, now: float) -> list[Item]:
        """Remove and return expired items, by their current deadlines, which may have been extended."""
        expired: list[Item] = []
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][2].state != "queued"):
            deadline, order, item = heap[0]
            if item.state == "queued" and item.expires > deadline:
                heapq.heapreplace(heap, (item.expires, order, item))
                continue
            heapq.heappop(heap)
            if item.state == "queued":
                item.state = "expired"
                self._forget(item)
                expired.append(item)
        return expired

    def take(self, now: float, *, idle: bool) -> Batch | None:
        """Return the batch to run next, if any: any batch for an idle slot, else a full one."""
        lane, first = self._choose(now, idle)
        return None if lane is None else self._form_batch(lane, first)

    def wake(self, *, idle: bool) -> float:
        """Return when an item expires, or a window closes while a slot is idle."""
        moment = self._deadlines[0][0] if self._deadlines else math.inf
        if self._windowed and idle and (oldest := self._oldest()) is not None:
            moment = min(moment, oldest.arrived + self.window)
        return moment

    def resize(self, cap: int) -> None:
        """Set the most items of a batch."""
        self.cap = cap
        for lane in self._lanes.values():
            self._update_full(lane)

    def limit(self, max_load: float, window: float) -> None:
        """Limit the cost and window of a batch below its bounds."""
        self.max_load, self.window = min(self._bounds.max_cost, max_load), min(self._bounds.window, window)
        for lane in self._lanes.values():
            self._update_full(lane)

    def drop(self) -> list[Item]:
        """Remove and return all waiting items."""
        left = [item for item in self._arrivals if item.state == "queued"]
        for waiting in (self._lanes, self._heads, self._deadlines, self._full, self._arrivals):
            waiting.clear()
        for item in left:
            self.shares.removed(item.tenant)
        self.size, self.cost = 0, 0.0
        return left

    def _rank(self, item: Item) -> float:
        ageing = self._lanes_of.ageing
        return item.deadline if ageing is None else item.arrived - item.priority * ageing

    def _list(self, lane: Lane) -> None:
        if (head := lane.head(self.shares)) is not None:
            heapq.heappush(self._heads, (head[0], lane))
        if len(self._heads) > 2 * len(self._lanes) + SLACK:
            heads = ((lane.head(self.shares), lane) for lane in self._lanes.values())
            self._heads = [(head[0], lane) for head, lane in heads if head is not None]
            heapq.heapify(self._heads)

    def _top(self) -> Lane | None:
        """Return the lane of the first item of all."""
        while self._heads:
            place, lane = self._heads[0]
            head = lane.head(self.shares)
            if head is None:
                heapq.heappop(self._heads)
            elif head[0] == place:
                return lane
            else:
                heapq.heapreplace(self._heads, (head[0], lane))
        return None

    def _sweep(self) -> None:
        """Remove stale entries, once they are many."""
        if len(self._arrivals) > 2 * self.size + SLACK:
            self._arrivals = deque(item for item in self._arrivals if item.state == "queued")
        if len(self._deadlines) > 2 * self.size + SLACK:
            self._deadlines = [entry for entry in self._deadlines if entry[2].state == "queued"]
            heapq.heapify(self._deadlines)

    def _forget(self, item: Item) -> None:
        """Account for an item that left its lane."""
        lane = self._lanes[item.key, self._lanes_of.bucket(item.cost)]
        lane.removed(item)
        self.shares.removed(item.tenant)
        self.size -= 1
        self.cost -= item.cost
        self._settle(lane)

    def _settle(self, lane: Lane) -> None:
        if lane.size:
            self._update_full(lane)
        else:
            del self._lanes[lane.key, lane.bucket]
            self._full.pop(lane, None)

    def _update_full(self, lane: Lane) -> None:
        """Update the set of lanes that fill a batch."""
        bounds = self._bounds
        enough = min(bounds.enough or self.cap, self.cap)
        cost = lane.longest * lane.size if self._lanes_of.padded else lane.cost
        if lane.size >= enough or cost >= self.max_load or cost >= bounds.enough_cost:
            self._full[lane] = None
        else:
            self._full.pop(lane, None)

    def _oldest(self) -> Item | None:
        arrivals = self._arrivals
        while arrivals and arrivals[0].state != "queued":
            arrivals.popleft()
        return arrivals[0] if arrivals else None

    def _choose(self, now: float, idle: bool) -> tuple[Lane | None, Item | None]:
        """Return the lane to take from, and an item that must be in the batch: the oldest, once it has waited long enough.

        For an idle slot, the lane of the first item; with lanes by cost alone a full lane, until the oldest item has
        waited for `bucket_wait`. Without an idle slot, or before a window closes, a full lane.
        """
        top = self._top()
        if top is None:
            return None, None
        if idle and not self._windowed:
            if not self._lanes_of.by_cost or not self._lanes_of.by_arrival:
                return top, None
            oldest = self._oldest()
            assert oldest is not None
            if oldest.arrived + self._lanes_of.bucket_wait <= now:
                return self._lanes[oldest.key, self._lanes_of.bucket(oldest.cost)], oldest
            return (top if not self._full or top in self._full else self._first(list(self._full))), None
        able = list(self._full)
        oldest = self._oldest()
        if idle and oldest is not None and oldest.arrived + self.window <= now:
            able.append(self._lanes[oldest.key, self._lanes_of.bucket(oldest.cost)])
        return (self._first(able) if able else None), None

    def _first(self, lanes: list[Lane]) -> Lane:
        return min(lanes, key=self._rank_of)

    def _rank_of(self, lane: Lane) -> LaneRank:
        head = lane.head(self.shares)
        assert head is not None
        return head[0]

    def _form_batch(self, lane: Lane, first: Item | None) -> Batch:
        items: list[Item] = []
        cost = longest = 0.0
        while len(items) < self.cap:
            item = first
            if item is None:
                head = lane.head(self.shares)
                if head is None:
                    break
                item = head[1]
            first, cost, longest = None, cost + item.cost, max(longest, item.cost)
            if items and (longest * (len(items) + 1) if self._lanes_of.padded else cost) > self.max_load:
                break
            item.state = "batched"
            items.append(item)
            lane.size -= 1
            lane.cost -= item.cost
            self.cost -= item.cost
            self.shares.charged(item.tenant, item.cost)
        self.size -= len(items)
        self._settle(lane)
        self._list(lane)
        return Batch(lane.key, items)


def _pop_gone(heap: list[tuple[float, int, Item]]) -> None:
    """Remove stale entries from the top of a heap."""
    while heap and heap[0][2].state != "queued":
        heapq.heappop(heap)
