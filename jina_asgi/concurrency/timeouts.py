"""How long others are waited for: time in which this process itself did not run does not count.

A machine that was paused, or a loop that was held up, finds every limit passed when it goes on, before those who were
paused with it could answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

__all__ = ["any_done"]

_PARTS = 8  # of a limit, waited for one after the other
_FORGIVEN = 4 * _PARTS  # parts that may take far longer than they should


async def any_done(works: Collection[asyncio.Future[Any]], seconds: float) -> bool:
    """Wait until one of these is done, for so many seconds in which this process ran; whether one is."""
    loop = asyncio.get_running_loop()
    part, left, forgiven = seconds / _PARTS, _PARTS, 0
    while left:
        began = loop.time()
        done, _ = await asyncio.wait(works, timeout=part, return_when=asyncio.FIRST_COMPLETED)
        if done:
            return True
        if loop.time() - began < 2 * part or forgiven >= _FORGIVEN:
            left -= 1
        else:
            forgiven += 1
    return False
