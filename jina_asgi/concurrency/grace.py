"""The grace period of an ending: counted once for a Runner and for all Runners within it, whatever each of them waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Seconds after the grace period that closing gets; then what cannot be ended is left behind.
CLOSING = 15.0

_until: ContextVar[float | None] = ContextVar("jina_asgi_grace_until", default=None)


def grace_until() -> float | None:
    """When the grace period ends that is being counted, on the monotonic clock; None: none is."""
    return _until.get()


def grace_left(grace: float) -> float:
    """Seconds that a Runner whose own grace period is `grace` may still wait for its calls."""
    moment = _until.get()
    return grace if moment is None else max(0.0, min(grace, moment - time.monotonic()))


@contextmanager
def grace_counted(moment: float | None) -> Iterator[None]:
    """Count a grace period, which ends at `moment`, unless one is being counted already."""
    token = _until.set(moment) if _until.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _until.reset(token)
