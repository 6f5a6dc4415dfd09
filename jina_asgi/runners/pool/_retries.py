"""Decides whether a call whose replica is gone runs again on another one. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping

from jina_asgi.errors import ReplicaDied, Unavailable

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
