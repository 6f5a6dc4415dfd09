"""Whose turn it is, by weight: start-time fair queueing over what each tenant costs.

A tenant's next item starts at the virtual time at which its last one ended, which is its cost over the tenant's weight
later than it started; the earliest start goes first. Who had nothing waiting joins at the present and has saved up
nothing. A tenant that waits for nothing is forgotten, at the latest when a thousand others wait for nothing either.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Tenants of whom nothing waits, and whose last turn still counts, that are remembered.
REMEMBERED = 1024


class Shares:
    """The virtual clock of some tenants.

    Args:
        weights: their shares; 1 for a tenant that is not named. None: everybody is one tenant, and nothing is counted.
    """

    def __init__(self, weights: Mapping[str, float] | None) -> None:
        self._weights = weights
        self._now = 0.0
        self._starts: dict[str, float] = {}  # of those that wait, and of those whose last turn still counts
        self._waiting: dict[str, int] = {}
        self._idle: dict[str, None] = {}  # of `_starts`, those that do not wait, in the order of leaving

    @property
    def known(self) -> int:
        """How many tenants are remembered."""
        return len(self._starts)

    def joined(self, tenant: str) -> None:
        """One more item of a tenant waits."""
        if self._weights is None:
            return
        count = self._waiting.get(tenant, 0)
        self._waiting[tenant] = count + 1
        if not count:
            self._starts[tenant] = max(self._starts.get(tenant, 0.0), self._now)
            self._idle.pop(tenant, None)

    def start(self, tenant: str) -> float:
        """The virtual time at which a tenant's next item starts."""
        return 0.0 if self._weights is None else self._starts[tenant]

    def took(self, tenant: str, cost: float) -> None:
        """An item of a tenant goes: its turn counts."""
        if self._weights is None:
            return
        start = self._starts[tenant]
        self._now = max(self._now, start)
        self._starts[tenant] = start + cost / self._weights.get(tenant, 1.0)
        self.left(tenant)

    def left(self, tenant: str) -> None:
        """An item of a tenant waits no more."""
        if self._weights is None:
            return
        self._waiting[tenant] -= 1
        if self._waiting[tenant]:
            return
        del self._waiting[tenant]
        if not self._waiting:  # nobody waits: nobody is owed anything
            self._starts.clear()
            self._idle.clear()
            self._now = 0.0
        elif self._starts[tenant] <= self._now:
            del self._starts[tenant]
        else:
            self._idle[tenant] = None
            if len(self._idle) > REMEMBERED:
                oldest = next(iter(self._idle))
                del self._idle[oldest], self._starts[oldest]
