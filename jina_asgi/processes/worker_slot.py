"""Numbers the web workers of a server, lowest free number first: a worker's replacement gets its number.

The number is held by a lock on an open file, so it is free as soon as its process is gone, however it ended.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from jina_asgi.errors import NotReady

__all__ = ["lease"]

_HELD: list[int] = []  # descriptors of this process's locks


def lease(folder: Path) -> int:
    """Leases the lowest slot that no process holds in `folder`, for the rest of this process's life.

    Slots count from 0. A process that leases twice holds two.

    Raises:
        NotReady: the folder is gone, or its file system has no locks.
    """
    number = 0
    while not _try_lease(folder / f"slot-{number}"):
        number += 1
    return number


def _try_lease(path: Path) -> bool:
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            raise
    except BlockingIOError:
        return False
    except OSError as error:
        raise NotReady(f"no slot can be leased: {error.strerror}: {path}") from error
    _HELD.append(held)
    return True


def _close_inherited() -> None:
    """Runs in a forked child: a lock lasts until the last copy of its descriptor is closed."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_close_inherited)
