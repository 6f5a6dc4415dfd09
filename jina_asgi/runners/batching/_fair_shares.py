"""Start-time fair queueing: picks the next tenant by weight and the cost of its items.

A tenant's next item starts at the virtual time at which its last one ended: its start plus its cost over the tenant's
weight; the earliest start goes first. A tenant without waiting items rejoins at the present and keeps no credit. An idle
tenant is forgotten, at the latest when a thousand others are idle, too.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The most idle tenants whose last start is remembered.
REMEMBERED = 1024


class FairShares:
    """The virtual clock of some tenants.

    Args:
        weights: their shares; 1 for a tenant that is not named. None: no tenants, nothing is counted.
    """

    def __init__(self, weights: Mapping[str, float] | None) -> None:
        self._weights = weights
        self._now = 0.0
        self._starts: dict[str, float] = {}  # of tenants with waiting items, and of idle ones that are remembered
        self._waiting: dict[str, int] = {}
        self._idle: dict[str, None] = {}  # the idle tenants of `_starts`, in order of leaving

    @property
    def known(self) -> int:
        """Return the number of remembered tenants."""
        return len(self._starts)

    def added(self, tenant: str) -> None:
        """Count a new waiting item of a tenant."""
        if self._weights is None:
            return
        count = self._waiting.get(tenant, 0)
        self._waiting[tenant] = count + 1
        if not count:
            self._starts[tenant] = max(self._starts.get(tenant, 0.0), self._now)
            self._idle.pop(tenant, None)

    def start(self, tenant: str) -> float:
        """Return the virtual time at which a tenant's next item starts."""
        return 0.0 if self._weights is None else self._starts[tenant]

    def charged(self, tenant: str, cost: float) -> None:
        """Charge a tenant for an item that runs."""
        if self._weights is None:
            return
        start = self._starts[tenant]
        self._now = max(self._now, start)
        self._starts[tenant] = start + cost / self._weights.get(tenant, 1.0)
        self.removed(tenant)

    def removed(self, tenant: str) -> None:
        """Count an item of a tenant that waits no more."""
        if self._weights is None:
            return
        self._waiting[tenant] -= 1
        if self._waiting[tenant]:
            return
        del self._waiting[tenant]
        if not self._waiting:  # no tenant waits: all start equal
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
