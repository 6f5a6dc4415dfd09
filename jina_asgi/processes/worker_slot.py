"""A number for each web worker of a server, the lowest that is free: what replaces a worker gets its number.

Held by a lock on an open file, so it is free again the moment its process is gone, however that went.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from jina_asgi.errors import NotReady

__all__ = ["lease"]

_HELD: list[int] = []  # descriptors of this process's locks


def lease(folder: Path) -> int:
    """Lease the lowest slot that no process holds in `folder`, for the rest of this process's life.

    Slots count from 0. A process that leases twice holds two.

    Raises:
        NotReady: the folder is gone, or its file system has no locks.
    """
    number = 0
    while not _take(folder / f"slot-{number}"):
        number += 1
    return number


def _take(path: Path) -> bool:
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


def _let_go() -> None:
    """In a forked child: a lock lasts until the last copy of its descriptor is closed."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)
