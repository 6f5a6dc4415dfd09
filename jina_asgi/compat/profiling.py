"""The names of `jina.logging.profile` that print how long something took."""

from __future__ import annotations

import time
from typing import Any, Self


class TimeContext:
    """Times its block, and prints it: `with TimeContext("indexing", logger): ...`.

    Attributes:
        duration: seconds, once the block has ended.
        readable_duration: the same, as text.
    """

    def __init__(self, task_name: str, logger: Any = None) -> None:
        self.task_name, self._logger = task_name, logger
        self.duration, self.readable_duration = 0.0, ""

    def now(self) -> float:
        """Seconds since the block began."""
        return time.perf_counter() - self.start

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        self._print(f"{self.task_name} ...")
        return self

    def __exit__(self, *_: object) -> None:
        self.duration = self.now()
        self.readable_duration = readable(self.duration)
        self._print(f"{self.task_name} takes {self.readable_duration} ({self.duration:.2f}s)")

    def _print(self, text: str) -> None:
        if self._logger is None:
            print(text, flush=True)  # noqa: T201  # as in Jina
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
