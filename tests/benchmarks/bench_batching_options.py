"""What each option of batching changes, beside the same load without it, in one process.

python tests/benchmarks/bench_batching_options.py --parts lengths,tenants,bulk,priorities,single_flight,target --rounds 3
"""

import argparse
import asyncio
import statistics
from collections.abc import Callable, Coroutine
from typing import Any

import option_loads as loads

TARGET = 200.0  # ms
Measured = Callable[[], Coroutine[Any, Any, Any]]


def rounds_of(count: int, *sides: Measured) -> list[list[Any]]:
    """What each side measured, in rounds that visit every side in turn."""
    return [list(found) for found in zip(*([asyncio.run(side()) for side in sides] for _ in range(count)), strict=True)]


def middle(found: list[dict[str, float]], name: str) -> float:
    return statistics.median(one[name] for one in found)


def ratios(found: list[dict[str, float]], base: list[dict[str, float]], name: str) -> str:
    """The median of the rounds' ratios, and the least and greatest."""
    all_of = sorted(one[name] / other[name] for one, other in zip(found, base, strict=True))
    return f"{statistics.median(all_of):.2f} ({all_of[0]:.2f} to {all_of[-1]:.2f})"


def lengths(seconds: float, count: int) -> str:
    sides: dict[str, dict[str, Any]] = {
        "count": {},
        "max_cost=2048": {"cost": "tokens", "max_cost": 2048},
        "max_padding=1.15": {"cost": "tokens", "max_padding": 1.15},
        "buckets=[16, 64, 256]": {"cost": "tokens", "buckets": [16, 64, 256]},
    }
    lines = ["## Lengths: 64 callers, 90 % of 8 tokens, 10 % of 256", ""]
    lines += ["| options | × tokens/s | tokens/s | padding | mean batch | long p99 ms |", "|---|--:|--:|--:|--:|--:|"]
    made = [lambda o=options: loads.lengths(seconds, loads.mixed, **o) for options in sides.values()]
    found = rounds_of(count, *made)
    for name, one in zip(sides, found, strict=True):
        cells = f"{middle(one, 'tokens/s'):.0f} | {middle(one, 'padding'):.2f} | {middle(one, 'batch'):.1f}"
        ratio = ratios(one, found[0], "tokens/s")
        lines.append(f"| {name} | {ratio} | {cells} | {middle(one, 'long p99 ms'):.0f} |")
    return "\n".join(lines)


def tenants(seconds: float, count: int) -> str:
    lines = ["## Tenants of weights 3 and 1, 64 callers each", ""]
    lines += ["| options | answers of one for each of the other |", "|---|--:|"]
    weights: dict[str, Any] = {"tenant_weights": {"gold": 3}}
    sides: dict[str, dict[str, Any]] = {"no weights": {}, "weights": weights, "mixed": {**weights, "mix_tenants": True}}
    made = [lambda o=options: loads.shares(seconds, **o) for options in sides.values()]
    for name, one in zip(sides, rounds_of(count, *made), strict=True):
        lines.append(f"| {name} | {statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f}) |")
    return "\n".join(lines)


def bulk(seconds: float, count: int) -> str:
    lines = ["## A query, ten times a second, beside two calls of 1,000 documents", ""]
    lines += ["| model | options | × p99 alone | p50 ms | p99 ms |", "|---|---|--:|--:|--:|"]
    sides: dict[str, dict[str, Any]] = {
        "alone": {"bulk": False},
        "no option": {"bulk": True},
        "tenant": {"bulk": True, "tenant": "whose"},
        "tenant, mixed": {"bulk": True, "tenant": "whose", "mix_tenants": True},
        "priority": {"bulk": True, "priority": "level"},
        "tenant, batches of 4": {"bulk": True, "tenant": "whose", "preferred_batch_size": 4},
    }
    for on in ("/flat", "/run"):
        made = [lambda o=options, on=on: loads.queries(seconds, on, **o) for options in sides.values()]
        found = rounds_of(count, *made)
        alone = [p99 for _, p99 in found[0]]
        for name, one in zip(sides, found, strict=True):
            times = sorted(p99 / base for (_, p99), base in zip(one, alone, strict=True))
            p50, p99 = (statistics.median(part) for part in zip(*one, strict=True))
            ratio = f"{statistics.median(times):.2f} ({times[0]:.2f} to {times[-1]:.2f})"
            lines.append(f"| {on} | {name} | {ratio} | {p50:.1f} | {p99:.1f} |")
    return "\n".join(lines)


def priorities(seconds: float, count: int) -> str:
    lines = ["## One of ten calls is urgent: median ms of those, and of the others", ""]
    lines += ["| load | urgent | others | urgent, no option | others, no option |", "|--:|--:|--:|--:|--:|"]
    for load in (0.5, 0.9, 1.2):
        made = [lambda o=options, x=load: loads.levels(seconds, x, **o) for options in ({"priority": "level"}, {})]
        cells = [f"{middle(one, name):.0f}" for one in rounds_of(count, *made) for name in ("urgent", "others")]
        lines.append(f"| {load:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def single_flight(seconds: float, count: int) -> str:
    lines = ["## 64 callers, texts by Zipf's law (1.1)", ""]
    lines += ["| texts | × calls/s | calls/s | run of 100 asked |", "|--:|--:|--:|--:|"]
    for texts in (50, 200, 10_000):
        made = [lambda o=options, n=texts: loads.zipf(seconds, n, **o) for options in ({"single_flight": True}, {})]
        on, off = rounds_of(count, *made)
        ran = 100 * middle(on, "items/s") / middle(on, "calls/s")
        lines.append(f"| {texts} | {ratios(on, off, 'calls/s')} | {middle(on, 'calls/s'):.0f} | {ran:.0f} |")
    return "\n".join(lines)


def target(seconds: float, count: int) -> str:
    lines = [f"## A latency target of {TARGET:.0f} ms: answers in time, as a part of the capacity", ""]
    lines += [
        "| load | with | without | p99 ms with | without | refused with |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for load in (0.5, 0.8, 1.0, 1.5, 3.0):
        sides: list[dict[str, Any]] = [{"latency_target": TARGET}, {}]
        made = [lambda o=options, x=load: loads.goodput(seconds, x, TARGET / 1000, **o) for options in sides]
        on, off = rounds_of(count, *made)
        cells = [f"{middle(one, 'goodput'):.2f}" for one in (on, off)] + [
            f"{middle(o, 'p99 ms'):.0f}" for o in (on, off)
        ]
        lines.append(f"| {load:.0%} | {' | '.join(cells)} | {middle(on, 'refused'):.0%} |")
    return "\n".join(lines)


PARTS = {part.__name__: part for part in (lengths, tenants, bulk, priorities, single_flight, target)}

if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parts", default=",".join(PARTS), help="(%(default)s)")
    options.add_argument("--seconds", type=float, default=4.0, help="(%(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    chosen = options.parse_args()
    for part in chosen.parts.split(","):
        print(PARTS[part](chosen.seconds, chosen.rounds), end="\n\n", flush=True)
