"""Who may come in: a count of pending calls and bytes, decided before a body is read."""

from __future__ import annotations

import time
from collections.abc import Callable

from jina_asgi.errors import Overloaded


class Admission:
    """At most `max_queue` calls and `max_bytes` bytes at once, waiting and running together.

    `retry_after` is what is pending over the measured rate of completions, at least a tenth of a second.
    """

    __slots__ = ("_clock", "_interval", "_last", "max_bytes", "max_queue", "pending", "pending_bytes", "rejected")

    def __init__(self, max_queue: int, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_queue, self.max_bytes = max_queue, max_bytes
        self.pending = self.pending_bytes = self.rejected = 0
        self._clock, self._last, self._interval = clock, 0.0, 0.0

    def admit(self, size: int) -> Admitted:
        """Raises Overloaded when the queue is full; a call larger than the queue may come when it is alone."""
        if self.pending >= self.max_queue or (self.pending and self.pending_bytes + size > self.max_bytes):
            self.rejected += 1
            raise Overloaded(
                f"the queue is full ({self.pending} calls, {self.pending_bytes} bytes); try again later",
                retry_after=self.retry_after,
            )
        self.pending += 1
        self.pending_bytes += size
        return Admitted(self, size)

    @property
    def retry_after(self) -> float:
        """Seconds until what is pending now should be done."""
        return min(max(0.1, self.pending * self._interval), 60.0) if self._interval else 1.0

    def leave(self, size: int) -> None:
        self.pending -= 1
        self.pending_bytes -= size
        now = self._clock()
        if self.pending and self._last:  # busy: the time between two completions is the rate
            self._interval += 0.05 * (now - self._last - self._interval)
        self._last = now if self.pending else 0.0


class Admitted:
    """A ticket: one call's place."""

    __slots__ = ("_admission", "_size")

    def __init__(self, admission: Admission, size: int) -> None:
        self._admission: Admission | None = admission
        self._size = size

    def close(self) -> None:
        """Give the place back; again does nothing."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave(self._size)
