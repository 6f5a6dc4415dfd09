"""The grace period of a shutdown: one deadline for a Runner and all Runners inside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Seconds after the grace period that closing may take; then what still runs is abandoned.
CLOSING = 15.0

_until: ContextVar[float | None] = ContextVar("jina_asgi_grace_until", default=None)


def grace_deadline() -> float | None:
    """Return the moment the current grace period ends, on the monotonic clock; None outside of one."""
    return _until.get()


def remaining_grace(grace: float) -> float:
    """Return the seconds that a Runner with its own period of `grace` may still wait for its calls."""
    moment = _until.get()
    return grace if moment is None else max(0.0, min(grace, moment - time.monotonic()))


@contextmanager
def grace_period(moment: float | None) -> Iterator[None]:
    """Start a grace period that ends at `moment`, unless one has started already."""
    token = _until.set(moment) if _until.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _until.reset(token)
