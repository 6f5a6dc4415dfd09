"""Freezes loaded objects for the garbage collector while a Deployment is served.

A full collection looks at every object of the process, and nothing is answered meanwhile: 80 ms with docarray alone,
more with a model's libraries. Frozen objects are skipped; objects that requests create are still collected.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_serving = 0
_frozen_by_host = False
_collected = False


@contextmanager
def frozen() -> Iterator[None]:
    """Freeze all live objects until the last concurrent user leaves; the first use in a process collects before.

    Objects that the host froze before the first of these users came stay frozen.
    """
    global _serving, _frozen_by_host, _collected
    with _lock:
        if not _serving:
            _frozen_by_host = bool(gc.get_freeze_count())
        if not _collected:
            gc.collect()
            _collected = True
        _serving += 1
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _serving -= 1
            if not _serving and not _frozen_by_host:
                gc.unfreeze()


def collect_dropped() -> None:
    """Collect frozen objects that were dropped since, such as a whole application; do nothing where none are frozen."""
    with _lock:
        if _serving and not _frozen_by_host:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
