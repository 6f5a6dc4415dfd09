"""Timeouts that do not count time in which this process itself was paused.

After a pause of the machine or a blocked loop every deadline has passed before the peers, paused as well, could answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

__all__ = ["any_done"]

_PARTS = 8  # slices of a timeout, waited for one after the other
_FORGIVEN = 4 * _PARTS  # slices that may take far longer than they should


async def any_done(works: Collection[asyncio.Future[Any]], seconds: float) -> bool:
    """Wait until one future is done, for at most so many seconds of running time; return whether one is."""
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
