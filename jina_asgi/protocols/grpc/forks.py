"""Detects forks: if gRPC was in use at a fork, its calls in the child would wait for ever."""

from __future__ import annotations

import os
import weakref

__all__ = ["cut_off", "opened", "over"]

_WORDS = (
    "gRPC was in use in the process that this one was forked from, and cannot be used here: ask over HTTP or a WebSocket,"
    " close what uses gRPC before the fork, or start processes by multiprocessing's 'spawn'"
)
#: The open channels and servers of this process.
_open: weakref.WeakSet[object] = weakref.WeakSet()
_is_cut_off = False


def opened(what: object) -> None:
    """Record that a channel or a server is open."""
    _open.add(what)


def over(what: object) -> None:
    """Record that it has been closed."""
    _open.discard(what)


def cut_off() -> str:
    """Why gRPC cannot be used in this process; "" if it can."""
    return _WORDS if _is_cut_off else ""


def _forked() -> None:
    global _is_cut_off
    _is_cut_off = _is_cut_off or bool(_open)
    _open.clear()


os.register_at_fork(after_in_child=_forked)
