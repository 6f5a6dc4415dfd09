"""The event loop of the processes and threads that we start: uvloop where it is installed, as in uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes such a loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop  # as good
    return new_event_loop


def run(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main)
