"""Decisions for a latency target: the largest batch, the longest gathering, and which calls would be late.

The duration of a batch is learned: a fixed part plus one proportional to its load, by least squares that weight older
batches less. A new call waits for the running batch and then for its own, so that batches of half the target keep it;
where even the smallest takes longer, the size is chosen that answers most in time. The aim is below the target so that
99 of 100 answers are within it: a late answer lowers the aim 99 times as far as one in time raises it, but never below
four fifths of the target, as a stall of the machine is not caused by load.
"""

from __future__ import annotations

import math

_KEPT = 0.9  # the weight that earlier measurements keep with each batch
_KNOWN = 3  # batches after which the model is used
_OUTLIER = 2.0  # a batch counts at most as this many times its expected duration
_LEAST = 0.8  # of the target
_SPREAD = 0.01  # variance of loads over their squared mean below which the slope is not learned
_STEP = 0.05  # of the target, that a batch of late answers lowers the aim
_SIZES = sorted({round(1.125**power) for power in range(71)} | {2**power for power in range(13)})  # 1 to about 4,000


class BatchTimes:
    """Learns the duration of batches by their load."""

    def __init__(self) -> None:
        self.batches = 0
        self.unit = 1.0  # the load of one item, on average
        self._fixed = self._each = 0.0
        self._differed = False  # loads have varied, so that the slope is known
        self._w = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough batches were measured."""
        return self.batches >= _KNOWN

    def measured(self, load: float, items: int, seconds: float) -> None:
        """Record the duration of a batch of this load."""
        if self.is_known:
            seconds = min(seconds, _OUTLIER * max(self.seconds_for(load), 1e-6))
        self.batches += 1
        self._w, self._x, self._y = _KEPT * self._w + 1, _KEPT * self._x + load, _KEPT * self._y + seconds
        self._xx, self._xy = _KEPT * self._xx + load * load, _KEPT * self._xy + load * seconds
        self.unit += (load / items - self.unit) / min(self.batches, 20)
        spread = self._w * self._xx - self._x**2
        if spread > _SPREAD * self._x**2:
            self._each = min(max((self._w * self._xy - self._x * self._y) / spread, 0.0), self._y / self._x)
            self._differed = True
        elif not self._differed:  # until loads differ, assume a duration proportional to load
            self._each = self._y / self._x if self._x else 0.0
        self._fixed = max((self._y - self._each * self._x) / self._w, 0.0)

    def seconds_for(self, load: float) -> float:
        """Return the expected seconds of a batch of this load."""
        return self._fixed + self._each * load


class LatencyTarget:
    """The decisions for one endpoint.

    Args:
        target: seconds from arrival to answer.
        max_items: of a batch.
        slots: batches that run at once.
    """

    def __init__(self, target: float, max_items: int, slots: int) -> None:
        self.target, self._max_items, self._slots = target, max_items, slots
        self.times = BatchTimes()
        self.aim = 0.9 * target
        self.max_load = math.inf  #: The load of a batch at most.
        self.window = math.inf  #: Seconds that a batch may gather at most.

    def batch_ended(self, load: float, items: int, seconds: float) -> None:
        """A batch was answered."""
        self.times.measured(load, items, seconds)
        if self.times.is_known:
            self._choose()

    def answered(self, late: int, count: int) -> None:
        """Record answers, and how many of them were late."""
        aim = self.aim + _STEP * (0.01 - late / count) * self.target
        self.aim = min(max(aim, _LEAST * self.target), self.target)

    def budget(self, load: float) -> float:
        """Return the seconds a call of this load may take: the target, plus the time of its further batches."""
        if not self.times.is_known:
            return math.inf
        return (
            self.target + 2 * max(load / self.max_load - 1, 0.0) * self.times.seconds_for(self.max_load) / self._slots
        )

    def latest_start(self, cost: float, budget: float) -> float:
        """Return the latest start of an item, in seconds after its arrival, to be answered in time."""
        if not self.times.is_known:
            return self.target
        return max(budget - (self.target - self.aim) - self.times.seconds_for(cost), 0.0)

    def expected(self, cost: float, queued: float, left: float) -> float:
        """Return the expected seconds until a new call is answered.

        `queued` is the load before it, `left` the seconds until a slot is free.
        """
        if not self.times.is_known:
            return 0.0
        batches, rest = divmod(queued, self.max_load)
        return (
            left
            + batches * self.times.seconds_for(self.max_load) / self._slots
            + self.times.seconds_for(min(rest + cost, self.max_load))
        )

    def _choose(self) -> None:
        unit, best = self.times.unit, 0.0
        self.max_load = unit
        for size in (*(size for size in _SIZES if size < self._max_items), self._max_items):
            took = max(self.times.seconds_for(size * unit), 1e-9)
            good = size / took * min(1.0, (self.aim - took) / took)
            if good > best:
                self.max_load, best = size * unit, good
        self.window = max(self.aim - self.times.seconds_for(self.max_load), 0.0)
