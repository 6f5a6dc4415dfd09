"""The lock of a file, between processes, with a limit of time."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

from jina_asgi.errors import NotReady

_AGAIN = 0.01


def lock_within(seconds: float, descriptor: int, path: Path) -> None:
    """Takes a lock by polling: a blocking lock has no timeout, and a stopped process may hold it.

    Raises:
        NotReady: another process holds it for too long.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise NotReady(f"another process has had {path} for {seconds:g} s; it is stopped, or hangs") from None
            time.sleep(_AGAIN)
        else:
            return
