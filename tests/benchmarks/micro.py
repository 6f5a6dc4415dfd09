"""Times two functions side by side in this process: rounds of both in turn, ratios paired within a round."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import timeit
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from harness import ratios, spread

#: Seconds that a number of runs take.
Timed = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: what is timed, and what it is compared with."""

    name: str
    ours: Timed
    baseline: str
    theirs: Timed


def plain(function: Callable[[], object]) -> Timed:
    """A function, timed with garbage collection on, as it is in a server."""
    return timeit.Timer(function, "import gc; gc.enable()").timeit


def awaited(loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[object]]) -> Timed:
    """A coroutine function, awaited one run after another by one task."""

    async def run(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            await function()
        return time.perf_counter() - start

    return lambda number: loop.run_until_complete(run(number))


def parser(description: str | None) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=0.1, help="a function's turn in a round (%(default)s)")
    options.add_argument("--rounds", type=int, default=15, help="(%(default)s)")
    return options


def microseconds(timed: Timed, seconds: float) -> float:
    """The mean over about `seconds`."""
    number = max(1, min(round(seconds / max(timed(1), 1e-7)), 100_000))
    return timed(number) / number * 1e6


def table(title: str, pairs: Sequence[Pair], options: argparse.Namespace) -> str:
    rows: dict[str, list[tuple[float, float]]] = {pair.name: [] for pair in pairs}
    for number in range(-1, options.rounds):  # the first one warms up
        for pair in pairs:
            figures = microseconds(pair.ours, options.seconds), microseconds(pair.theirs, options.seconds)
            if number >= 0:
                rows[pair.name].append(figures)
                print(f"  {pair.name}: {figures[0]:.1f} {figures[1]:.1f}", file=sys.stderr, flush=True)
    lines = [f"## {title}", "", "| | µs | beside | µs | time ratio | times faster |", "|---|--:|---|--:|--:|--:|"]
    for pair in pairs:
        ours, theirs = zip(*rows[pair.name], strict=True)
        paired = ratios([{"": value} for value in ours], [{"": value} for value in theirs], "")
        lines.append(
            f"| {pair.name} | {statistics.median(ours):.1f} | {pair.baseline} | {statistics.median(theirs):.1f}"
            f" | {spread(paired)} | {1 / statistics.median(paired):.1f} |"
        )
    return "\n".join([*lines, ""])
