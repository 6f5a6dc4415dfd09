"""The line that the access log has of each call: where it went, how it ended, and how long it took; nothing of its documents."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from jina_asgi.errors._shown import class_name

logger = logging.getLogger("jina_asgi.access")

_LONGEST = 64  # characters of a name that a client sent
_NAMES = ("id", "sub", "username", "display_name", "name", "email")


class CallRecord:
    """What is measured of one call: its size in bytes, when it began to run, and in a batch of how many documents.

    A call that runs in another process is not seen to begin.
    """

    __slots__ = ("batch", "began", "opened", "size")

    def __init__(self) -> None:
        self.opened = time.perf_counter()
        self.began: float | None = None
        self.batch = self.size = 0

    def begin(self, batch: int = 0) -> None:
        """Called when the call begins to run, and when it does so again."""
        self.began, self.batch = time.perf_counter(), batch

    def leave(self) -> None:
        """Called when the call is sent to another process."""
        self.began = None


def log_call(endpoint: str, protocol: str, outcome: str, record: CallRecord, identity: Any = None) -> None:
    """Log the line of a call that has ended; times are in seconds."""
    now = time.perf_counter()
    fields: dict[str, Any] = {
        "endpoint": _bounded(endpoint),
        "protocol": protocol,
        "outcome": outcome,
        "seconds": round(now - record.opened, 6),
        "bytes": record.size,
    }
    if record.began is not None:
        fields |= {"wait": round(record.began - record.opened, 6), "run": round(now - record.began, 6)}
    if record.batch:
        fields["batch"] = record.batch
    if who := _who(identity):
        fields["who"] = who
    logger.info(" ".join(f"{name}={value}" for name, value in fields.items()), extra=fields)


def _who(identity: Any) -> str:
    """A caller's name: the identity if it is text or a number, else the first of its names; else its class."""
    if identity is None:
        return ""
    if isinstance(identity, str | int):
        return _bounded(str(identity))
    has_keys = isinstance(identity, Mapping)
    names = (identity.get(name) if has_keys else getattr(identity, name, None) for name in _NAMES)
    return _bounded(next((str(name) for name in names if isinstance(name, str | int)), class_name(identity)))


def _bounded(text: str) -> str:
    """The start of a text in one word: a client can neither write a line of its own nor a field."""
    return "".join(c if c.isprintable() and not c.isspace() and c != "=" else "_" for c in text[:_LONGEST])
