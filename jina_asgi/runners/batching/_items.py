"""The batch kernel's data: items, their queues, batches, and kinds of failure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum

#: How many stale heap entries may remain before they are removed.
SLACK = 64


class FailureKind(Enum):
    """Why a batch failed."""

    POISON = "poison"  #: one item may have caused it: halve, if the endpoint is idempotent
    REFUSED = "refused"  #: an item was refused before the method ran: halve
    DEATH = "death"  #: the process died: each item runs again alone, once, if the endpoint is idempotent
    MEMORY = "memory"  #: too many items at once: halve, and lower the cap
    FINAL = "final"  #: a retry would not help


@dataclass(frozen=True, slots=True)
class Lanes:
    """Orders a queue besides deadlines: buckets of similar cost, priorities, shares of tenants. Seconds."""

    padded: bool = False  # the cost of a batch is its largest item's times their number
    buckets: tuple[float, ...] = ()  # the greatest cost of each bucket
    max_padding: float = math.inf  # largest over smallest cost of a bucket whose bounds are not given
    bucket_wait: float = 0.1  # fuller buckets go first until an item has waited so long
    ageing: float | None = None  # the waiting time that one step of priority is worth; None: no priorities
    weights: Mapping[str, float] | None = None  # the shares of tenants, 1 where not named; None: no tenants

    @property
    def by_cost(self) -> bool:
        """Whether items of different cost are kept apart."""
        return bool(self.buckets) or self.max_padding < math.inf

    @property
    def by_arrival(self) -> bool:
        """Whether items are ordered by deadline and arrival only."""
        return self.ageing is None and self.weights is None

    def bucket(self, cost: float) -> float:
        """Return the bucket of a cost."""
        if self.buckets:
            return bisect_left(self.buckets, cost)
        if self.max_padding == math.inf:
            return 0
        if self.max_padding == 1:
            return cost
        if cost <= 0:
            return -math.inf  # next to any other item a cost of 0 is all padding
        return math.floor(math.log(cost) / math.log(self.max_padding))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a batch, and when it starts. Seconds; costs in the caller's unit."""

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
    latest_start: float = math.inf  # the latest start that keeps the latency target, though the deadline is later

    @property
    def expires(self) -> float:
        """Return the moment after which it must not begin."""
        return min(self.deadline, self.latest_start)


@dataclass(slots=True, eq=False)
class Batch:
    """Items that run together, in order of their deadlines; cancelled ones stay, marked by their state."""

    key: Hashable
    items: list[Item]
    deadline: float = math.inf  # the earliest, of a batch that waits to run again
    began: float = math.inf  # when it began, on the caller's clock


@dataclass(frozen=True, slots=True)
class Decisions:
    """The outcome of a step: run `start`, fail `expired`, and call `step` again at `wake` at the latest."""

    start: list[Batch]
    expired: list[Item]
    wake: float | None
