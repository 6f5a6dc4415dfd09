"""The progress line of `show_progress`: counts requests and documents on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from jina_asgi.clients.responses import Response


class Progress:
    """Counts and shows progress, as a context manager. On a terminal the line is updated, elsewhere it is written at
    the end.
    """

    def __init__(
        self, *, shown: bool, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shown, self._stream, self._clock = shown, stream or sys.stderr, clock
        self._moves = self._stream.isatty()
        self._requests = self._docs = self._failed = 0
        self._start = 0.0

    def __enter__(self) -> Self:
        self._start = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write(("\r" if self._moves else "") + self._line() + "\n")
            self._stream.flush()

    def count(self, response: Response) -> None:
        """Counts one answered request."""
        self._requests += 1
        if response.error is None:
            self._docs += len(response.docs)
        else:
            self._failed += 1
        if self._shown and self._moves:
            self._stream.write("\r" + self._line())
            self._stream.flush()

    def _line(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._requests} requests{failed}, {self._docs} documents, {self._clock() - self._start:.1f} s"
