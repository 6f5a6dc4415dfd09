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
    lines = [f"## {title}", "", "| | µs | beside | µs | ratio |", "|---|--:|---|--:|--:|"]
    for pair in pairs:
        ours, theirs = zip(*rows[pair.name], strict=True)
        lines.append(
            f"| {pair.name} | {statistics.median(ours):.1f} | {pair.baseline} | {statistics.median(theirs):.1f}"
            f" | {_verdict(ours, theirs)} |"
        )
    return "\n".join([*lines, ""])


def _verdict(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median ratio of paired times, the right way up, with the least and greatest in brackets."""
    paired = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    if statistics.median(paired) < 0.7:
        paired, word = [1 / ratio for ratio in paired], "times faster"
    else:
        word = "of its time"
    return f"{statistics.median(paired):.2f} {word} ({min(paired):.2f} to {max(paired):.2f})"
