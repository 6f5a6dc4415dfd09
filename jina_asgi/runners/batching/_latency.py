"""What a latency target asks for: how much a batch may hold, how long it may gather, and who cannot be answered in time.

How long a batch takes is learned as it runs: a fixed part and one that grows with its load, by least squares in which
what is older counts less. Whoever comes waits for the batch that runs and then for its own, so that batches of half the
target keep it; where even the smallest takes longer, as much is taken as gives most answers in time. The aim lies under
the target by as much as keeps 99 of 100 answers within it: a late answer lowers it 99 times as far as one in time raises
it, and never below four fifths of the target: a stall of the machine is nobody's load.
"""

from __future__ import annotations

import math

_KEPT = 0.9  # of the weight of what was measured, with each batch
_KNOWN = 3  # batches after which the model is believed
_OUTLIER = 2.0  # times what was expected, at most, that a batch counts
_LEAST = 0.8  # of the target
_SPREAD = 0.01  # the variance of loads, over their mean squared, below which nothing is learned about others
_STEP = 0.05  # of the target, that a batch of late answers lowers the aim
_SIZES = sorted({round(1.125**power) for power in range(71)} | {2**power for power in range(13)})  # 1 to about 4,000


class BatchTimes:
    """How long batches take, by their load."""

    def __init__(self) -> None:
        self.batches = 0
        self.unit = 1.0  # the load of one item, on average
        self._fixed = self._each = 0.0
        self._differed = False  # loads have, so that it is known what more of it takes
        self._w = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def known(self) -> bool:
        """Whether enough was measured."""
        return self.batches >= _KNOWN

    def measured(self, load: float, items: int, seconds: float) -> None:
        """A batch of this load took so long."""
        if self.known:
            seconds = min(seconds, _OUTLIER * max(self.of(load), 1e-6))
        self.batches += 1
        self._w, self._x, self._y = _KEPT * self._w + 1, _KEPT * self._x + load, _KEPT * self._y + seconds
        self._xx, self._xy = _KEPT * self._xx + load * load, _KEPT * self._xy + load * seconds
        self.unit += (load / items - self.unit) / min(self.batches, 20)
        spread = self._w * self._xx - self._x**2
        if spread > _SPREAD * self._x**2:
            self._each = min(max((self._w * self._xy - self._x * self._y) / spread, 0.0), self._y / self._x)
            self._differed = True
        elif not self._differed:  # as long as nothing else is known, a larger load takes as much longer as it is larger
            self._each = self._y / self._x if self._x else 0.0
        self._fixed = max((self._y - self._each * self._x) / self._w, 0.0)

    def of(self, load: float) -> float:
        """The seconds that a batch of this load should take."""
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
        self.most = math.inf  #: The load of a batch at most.
        self.window = math.inf  #: Seconds that a batch may gather at most.

    def ended(self, load: float, items: int, seconds: float) -> None:
        """A batch was answered."""
        self.times.measured(load, items, seconds)
        if self.times.known:
            self._choose()

    def answered(self, late: int, count: int) -> None:
        """So many were answered, of which some too late."""
        aim = self.aim + _STEP * (0.01 - late / count) * self.target
        self.aim = min(max(aim, _LEAST * self.target), self.target)

    def allowed(self, load: float) -> float:
        """Seconds for a call of this load: the target, and what it takes to run what one batch does not hold."""
        if not self.times.known:
            return math.inf
        return self.target + 2 * max(load / self.most - 1, 0.0) * self.times.of(self.most) / self._slots

    def latest(self, cost: float, allowed: float) -> float:
        """Seconds after its arrival at which an item must begin, at the latest, to be answered in time."""
        if not self.times.known:
            return self.target
        return max(allowed - (self.target - self.aim) - self.times.of(cost), 0.0)

    def expected(self, cost: float, queued: float, left: float) -> float:
        """Seconds until a newcomer would be answered.

        `queued` is the load that goes before it, `left` the seconds until the first of the slots is free.
        """
        if not self.times.known:
            return 0.0
        batches, rest = divmod(queued, self.most)
        return left + batches * self.times.of(self.most) / self._slots + self.times.of(min(rest + cost, self.most))

    def _choose(self) -> None:
        unit, best = self.times.unit, 0.0
        self.most = unit
        for size in (*(size for size in _SIZES if size < self._max_items), self._max_items):
            took = max(self.times.of(size * unit), 1e-9)
            good = size / took * min(1.0, (self.aim - took) / took)
            if good > best:
                self.most, best = size * unit, good
        self.window = max(self.aim - self.times.of(self.most), 0.0)
