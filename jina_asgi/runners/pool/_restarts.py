"""Decides when a failed replica is restarted, and when to give up. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST_DELAY = 0.5  # seconds
LONGEST_DELAY = 30.0
LOOP_FAILURES = 5  # within `LOOP_SECONDS`: the pool is failing
LOOP_SECONDS = 60.0


@dataclass(slots=True)
class Restarts:
    """The failures of one pool's replicas. A replica that had answered a call before it died has not failed."""

    failing: bool = False  #: replicas die as fast as they are started, and none has come up since
    in_a_row: dict[int, int] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)

    def failed(self, replica: int, now: float, jitter: float) -> float:
        """Record a death before the first answer; return the backoff in seconds, doubling, less up to a third by `jitter`."""
        self.recent.append(now)
        self._forget(now)
        before = self.in_a_row.get(replica, 0)
        self.in_a_row[replica] = before + 1
        self.failing = self.failing or len(self.recent) >= LOOP_FAILURES
        delay = LONGEST_DELAY if self.failing else FIRST_DELAY * 2.0 ** min(before, 16)
        return min(delay, LONGEST_DELAY) * (1 - jitter / 3)

    def died(self, replica: int, jitter: float) -> float:
        """Record a death after answers; return the seconds to wait."""
        self.in_a_row.pop(replica, None)
        return FIRST_DELAY * (1 - jitter / 3)

    def give_up(self) -> float:
        """Record that the replicas cannot start; return the seconds until the next try."""
        self.failing = True
        return LONGEST_DELAY

    def reset(self) -> None:
        """Reset for a new start of the pool. Recent failures still count: one more, and it is failing at once."""
        self.failing = False

    def up(self) -> None:
        """Record that a replica has come up."""
        self.failing = False

    def worked(self, replica: int) -> None:
        """Record an answer: the replica's earlier failures are forgotten."""
        if self.in_a_row.pop(replica, None):
            self.recent.clear()

    def _forget(self, now: float) -> None:
        while self.recent and self.recent[0] <= now - LOOP_SECONDS:
            self.recent.popleft()
