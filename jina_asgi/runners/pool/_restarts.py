"""When a replica that failed is started again, and when to stop trying: pure decisions, with time as an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST_DELAY = 0.5  # seconds
LONGEST_DELAY = 30.0
LOOP_FAILURES = 5  # within `LOOP_SECONDS`: the replicas of this pool do not come up
LOOP_SECONDS = 60.0


@dataclass(slots=True)
class Restarts:
    """The failures of one pool's replicas. A replica that had answered something when it died has not failed."""

    failing: bool = False  #: they die as fast as they are started, and none has come up since
    in_a_row: dict[int, int] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)

    def failed(self, replica: int, now: float, jitter: float) -> float:
        """It died before it had answered anything: seconds to wait, doubling, less up to a third by `dice` (0 to 1)."""
        self.recent.append(now)
        self._forget(now)
        before = self.in_a_row.get(replica, 0)
        self.in_a_row[replica] = before + 1
        self.failing = self.failing or len(self.recent) >= LOOP_FAILURES
        delay = LONGEST_DELAY if self.failing else FIRST_DELAY * 2.0 ** min(before, 16)
        return min(delay, LONGEST_DELAY) * (1 - jitter / 3)

    def died(self, replica: int, jitter: float) -> float:
        """It died at work: seconds to wait."""
        self.in_a_row.pop(replica, None)
        return FIRST_DELAY * (1 - jitter / 3)

    def give_up(self) -> float:
        """Whoever keeps them says that they do not come up: seconds to wait until asking again."""
        self.failing = True
        return LONGEST_DELAY

    def reset(self) -> None:
        """The pool is begun anew. What has failed lately counts on: one more failure, and it fails at once."""
        self.failing = False

    def up(self) -> None:
        """A replica has come up."""
        self.failing = False

    def worked(self, replica: int) -> None:
        """It has answered: its earlier failures are forgotten."""
        if self.in_a_row.pop(replica, None):
            self.recent.clear()

    def _forget(self, now: float) -> None:
        while self.recent and self.recent[0] <= now - LOOP_SECONDS:
            self.recent.popleft()
