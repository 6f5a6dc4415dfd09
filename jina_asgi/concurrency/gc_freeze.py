"""Keeps what loading made out of the garbage collector's sight while something is served.

A full collection looks at every object of the process, and nothing is answered meanwhile: 80 ms with docarray alone,
more with a model's libraries. What is frozen is not looked at; what requests make and drop still is.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_serving = 0
_frozen_by_host: bool | None = None


@contextmanager
def frozen() -> Iterator[None]:
    """Freeze what is alive, until the last who asked for this leaves; the first time in a process, collect before.

    What a host froze before us stays frozen.
    """
    global _serving, _frozen_by_host
    with _lock:
        _serving += 1
        if _frozen_by_host is None:
            _frozen_by_host = bool(gc.get_freeze_count())
            gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _serving -= 1
            if not _serving and not _frozen_by_host:
                gc.unfreeze()


def look_for_dropped() -> None:
    """Collect what was frozen and has been dropped since, such as a whole application; where nothing is, do nothing."""
    with _lock:
        if _serving and not _frozen_by_host:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
