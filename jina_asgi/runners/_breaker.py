"""The state of a circuit breaker. Pure: the clock is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """Opens after so many failures in a row; then one call at a time may try, after a pause that doubles.

    Attributes:
        tolerated: failures in a row after which it opens.
        pause: seconds for which it opens first; twice as many after each try that fails, up to `longest`.
    """

    tolerated: int = 5
    pause: float = 0.5
    longest: float = 30.0
    failures: int = 0
    _until: float = -math.inf
    _trying: bool = False

    @property
    def is_open(self) -> bool:
        return self.failures >= self.tolerated

    def wait(self, now: float) -> float:
        """Return the seconds until a call may try; 0.0 if one may now."""
        if not self.is_open:
            return 0.0
        if self._trying:
            return self.pause
        return max(0.0, self._until - now)

    def begin_try(self) -> bool:
        """Begin a call that `wait` allowed; whether it is the single try of an open breaker."""
        self._trying = self.is_open
        return self._trying

    def succeeded(self) -> None:
        """Record an answer of the server, an error included."""
        self.failures, self._trying = 0, False

    def failed(self, now: float) -> None:
        """Record that the server could not be reached, or was gone before it answered."""
        if self.is_open and not self._trying:
            return  # a call from before the breaker opened
        self.failures, self._trying = self.failures + 1, False
        if self.is_open:
            doublings = min(self.failures - self.tolerated, 30)
            self._until = now + min(self.longest, self.pause * 2.0**doublings)

    def given_up(self) -> None:
        """Record that the try was cancelled or late, which says nothing about the server."""
        self._trying = False
