"""Wakes the health checks of this process to look again: an `unhealthy_reason` may have changed.

There is one signal for the process. Changes are rare, and a look takes a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class HealthSignal:
    """Calls its watchers at each `notify`, from any thread."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[], None]] = set()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` at each change, in the thread that notifies. Returns a function that undoes this."""
        self._watchers.add(callback)
        return partial(self._watchers.discard, callback)

    def notify(self) -> None:
        """Something that an `unhealthy_reason` is made of has changed."""
        for callback in tuple(self._watchers):
            callback()


health_signal = HealthSignal()
