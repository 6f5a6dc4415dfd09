"""Decides when a failed replica is restarted, and when to give up. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass, field

from jina_asgi.errors import ReplicaDied, Unavailable

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


_MOVES = 8  # the most moves to other replicas of a call that had not begun


class CallRetries:
    """The tries of one call.

    Args:
        counts: of the pool: "moved", "retried" and "lost" calls.
        may_repeat: whether the call may run again though it had begun.
    """

    __slots__ = ("_counts", "_deaths", "_may_repeat", "_moves")

    def __init__(self, counts: MutableMapping[str, int], may_repeat: bool) -> None:
        self._counts, self._may_repeat = counts, may_repeat
        self._deaths = self._moves = 0

    def may_retry(self, error: Unavailable) -> bool:
        """Whether the call runs again after this error of a replica that is gone.

        Raises:
            ReplicaDied: it had begun and may not run again, or two replicas died while running it.
        """
        if not isinstance(error, ReplicaDied):
            self._moves += 1
            self._counts["moved"] += 1
            return self._moves <= _MOVES
        self._deaths += 1
        if self._deaths > 1:
            self._counts["lost"] += 1
            raise ReplicaDied("two replicas died while they ran this call, which is not tried again") from error
        if not self._may_repeat:
            self._counts["lost"] += 1
            raise ReplicaDied("the replica died while it ran this call; whether it took effect is not known") from error
        self._counts["retried"] += 1
        return True
