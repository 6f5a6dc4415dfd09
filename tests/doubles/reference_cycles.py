"""What calls leave to the garbage collector, and a cycle in it, in words."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Any

import pytest

from jina_asgi.concurrency import process_wide

TIMES = 10  # calls, of which each leaves as much
_TELLING = (BaseException, FrameType, asyncio.Future)  # grpc.aio leaves a few small objects of its own


def end_dropped_applications() -> None:
    """End the applications that earlier tests dropped: frozen as they are, they go on until the collector sees them."""
    give_up = time.monotonic() + 10
    while True:
        gc.unfreeze()
        gc.collect()
        if not process_wide._serving:
            return
        assert time.monotonic() < give_up, f"{process_wide._serving} applications are served and were not dropped"
        time.sleep(0.01)


async def check_no_cycle_after(way: Callable[[], Awaitable[None]]) -> None:
    """Fail, with a cycle in words, where each of several calls leaves errors, frames, tasks or objects of ours in one."""
    for _ in range(3):
        await way()
    await _settled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(TIMES):
            await way()
        await _settled()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()
    telling = [each for each in found if isinstance(each, _TELLING) or type(each).__module__.startswith("jina_asgi")]
    if len(telling) >= TIMES:
        pytest.fail(f"{TIMES} calls left {described(found)}")


async def _settled() -> None:
    """Until what a call began has ended: tasks in a few turns of the loop, and a thread that gave its answer back."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


def described(found: Sequence[Any]) -> str:
    """A short cycle among these objects, each with the name by which it holds the next, and how many of each type."""
    errors_first = sorted(found, key=lambda each: not isinstance(each, BaseException))
    cycles = [cycle for start in errors_first[:100] if (cycle := _cycle(start, found))]
    shortest = min(cycles, key=len, default=[])
    steps = [_holding(each, then) for each, then in zip(shortest, shortest[1:] + shortest[:1], strict=True)]
    counts = Counter(type(each).__qualname__ for each in found).most_common(8)
    return "\n  -> ".join([f"{counts}", *steps])


def _cycle(start: Any, among: Sequence[Any]) -> list[Any]:
    """The shortest way from an object back to it."""
    left = {id(each) for each in among}
    ways = deque([[start]])
    while ways:
        way = ways.popleft()
        for held in gc.get_referents(way[-1]):
            if held is start:
                return way
            if id(held) in left:
                left.discard(id(held))
                ways.append([*way, held])
    return []


def _holding(each: Any, held: Any) -> str:
    kind = type(each).__qualname__
    if isinstance(each, FrameType):
        names = [name for name, value in each.f_locals.items() if value is held]
        return f"{each.f_code.co_qualname}:{each.f_lineno} {', '.join(names)}"
    names = [*getattr(type(each), "__slots__", ()), *getattr(each, "__dict__", {}), "__cause__", "__context__"]
    return f"{kind} {', '.join(name for name in names if getattr(each, name, None) is held)}"
