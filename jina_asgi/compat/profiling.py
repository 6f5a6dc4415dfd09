"""What programs take from `jina.logging.profile`: how long something took, as it is printed."""

from __future__ import annotations

import time
from typing import Any, Self


class TimeContext:
    """Times what runs inside, and tells it: `with TimeContext("indexing", logger): ...`.

    Attributes:
        duration: seconds, once it has ended.
        readable_duration: the same, as text.
    """

    def __init__(self, task_name: str, logger: Any = None) -> None:
        self.task_name, self._logger = task_name, logger
        self.duration, self.readable_duration = 0.0, ""

    def now(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.start

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        self._tell(f"{self.task_name} ...")
        return self

    def __exit__(self, *_: object) -> None:
        self.duration = self.now()
        self.readable_duration = readable(self.duration)
        self._tell(f"{self.task_name} takes {self.readable_duration} ({self.duration:.2f}s)")

    def _tell(self, text: str) -> None:
        if self._logger is None:
            print(text, flush=True)  # noqa: T201  # as Jina does
        else:
            self._logger.info(text)


def readable(seconds: float) -> str:
    """Seconds in words: "1 hour and 2 seconds"."""
    left, parts = int(seconds), []
    for name, length in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " and ".join(parts) or "0 seconds"
