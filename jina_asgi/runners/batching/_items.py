"""What the batch kernel decides about: items, their queues, batches, and why one failed. Pure data."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum

#: Entries of those gone that may lie about before they are swept out.
SLACK = 64


class Fault(Enum):
    """Why a batch failed."""

    POISON = "poison"  #: an item may be to blame: worth halving, where running again is allowed
    REFUSED = "refused"  #: an item was refused before anything ran: worth halving, whatever may run again
    DEATH = "death"  #: its process died: each runs again alone, once, where running again is allowed
    MEMORY = "memory"  #: too many at once: halve, and remember how many were too many
    FINAL = "final"  #: running again would not help


@dataclass(frozen=True, slots=True)
class Lanes:
    """What orders a queue beside deadlines: similar costs together, priorities, the shares of tenants. Seconds."""

    padded: bool = False  # a batch costs its dearest item times their number
    buckets: tuple[float, ...] = ()  # the greatest cost of each bucket
    max_padding: float = math.inf  # of a bucket whose bounds are not given: the dearest over the cheapest
    bucket_wait: float = 0.1  # fuller buckets go first until an item has waited so long
    ageing: float | None = None  # what one step of priority is worth in waiting; None: no priorities
    weights: Mapping[str, float] | None = None  # the shares of tenants, 1 where not named; None: no tenants

    @property
    def by_cost(self) -> bool:
        """Whether items of different cost are kept apart."""
        return bool(self.buckets) or self.max_padding < math.inf

    @property
    def by_arrival(self) -> bool:
        """Whether nobody goes before others but for deadlines."""
        return self.ageing is None and self.weights is None

    def bucket(self, cost: float) -> float:
        """Which of the buckets this cost belongs to."""
        if self.buckets:
            return bisect_left(self.buckets, cost)
        if self.max_padding == math.inf:
            return 0
        if self.max_padding == 1:
            return cost
        if cost <= 0:
            return -math.inf  # of what costs nothing, beside anything else all is padding
        return math.floor(math.log(cost) / math.log(self.max_padding))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a batch may hold, and when it starts. Seconds; costs in the caller's unit."""

    max_items: int
    max_cost: float = math.inf
    window: float = 0.0
    gather: str = "idle"
    idempotent: bool = False
    enough: int = 0  # this many make a batch full, though it may hold more (0: `max_items`)
    enough_cost: float = math.inf  # this cost makes a batch full, though it may hold more
    lanes: Lanes | None = None  # None: one queue for each key, by deadline


@dataclass(slots=True, eq=False)
class Item:
    """One document in the queue. Queues are ordered by deadline, then by arrival."""

    key: Hashable
    cost: float = 1.0
    deadline: float = math.inf
    arrived: float = 0.0
    order: int = 0
    state: str = "new"
    deaths: int = 0  # of processes that ran it
    tenant: str = ""
    priority: int = 0
    latest: float = math.inf  # when it is no use to begin any more, though its deadline is later

    @property
    def expires(self) -> float:
        """When it may not begin any more."""
        return min(self.deadline, self.latest)


@dataclass(slots=True, eq=False)
class Batch:
    """Items that run together, in the order of their deadlines; those cancelled since stay, by their state."""

    key: Hashable
    items: list[Item]
    deadline: float = math.inf  # the earliest, of a batch that waits to run again
    began: float = math.inf  # when it did, on the caller's clock


@dataclass(frozen=True, slots=True)
class Decisions:
    """What to do now: run `start`, tell `expired`, and call `step` again at `wake` at the latest."""

    start: list[Batch]
    expired: list[Item]
    wake: float | None


@dataclass(slots=True, eq=False)
class Queue:
    """The items of one key: a heap, from which what was cancelled goes when it comes to the top."""

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
