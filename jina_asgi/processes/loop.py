"""The event loop of the processes that we start: uvloop where it is installed, as in uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`."""
    try:
        from uvloop import new_event_loop as made
    except ImportError:
        made = asyncio.new_event_loop  # type: ignore[assignment]  # as good
    with asyncio.Runner(loop_factory=made) as runner:
        runner.run(main)
