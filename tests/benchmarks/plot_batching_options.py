"""The plots of the options of batching in docs/batching.md, measured here: plot_batching_options.py [FOLDER] [SECONDS]."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import option_loads as loads
from plot_batching import chart

BLUE, RED, GREY = "#1b6ca8", "#c0392b", "#777777"
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0


def lengths() -> str:
    bounds = (None, 4.0, 2.0, 1.5, 1.25, 1.15, 1.05)
    found = [
        asyncio.run(loads.lengths(SECONDS, loads.spread, **({"cost": "tokens", "max_padding": most} if most else {})))
        for most in bounds
    ]
    return chart(
        "64 callers, texts of 4 to 256 tokens, 5 ms a call and 20 µs a padded token",
        "max_padding",
        ["none", *(f"{most:g}" for most in bounds[1:])],
        [
            ("tokens a second", BLUE, [one["tokens/s"] for one in found]),
            ("padded tokens for 100 real ones", RED, [100 * one["padding"] for one in found]),
        ],
    )


def tenants() -> str:
    weights = (1, 2, 3, 5, 8)
    had = [100 * asyncio.run(loads.shares(SECONDS, tenant_weights={"gold": weight})) for weight in weights]
    return chart(
        "Two tenants with 64 callers each",
        "weight of one; the other's is 1",
        [str(weight) for weight in weights],
        [
            ("its answers for 100 of the other's", BLUE, had),
            ("asked for", GREY, [100 * weight for weight in weights]),
        ],
        one_scale=True,
    )


def bulk() -> str:
    sides: dict[str, dict[str, Any]] = {
        "alone": {"bulk": False},
        "tenant, batches of 4": {"bulk": True, "tenant": "whose", "preferred_batch_size": 4},
        "tenant": {"bulk": True, "tenant": "whose"},
        "priority": {"bulk": True, "priority": "level"},
        "neither": {"bulk": True},
    }
    found = [asyncio.run(loads.queries(SECONDS, "/run", **options)) for options in sides.values()]
    return chart(
        "One document ten times a second, beside two calls of 1,000 (40 ms a call and 0.8 ms a document)",
        "option",
        [*sides],
        [("99th percentile, ms", RED, [p99 for _, p99 in found]), ("median, ms", BLUE, [p50 for p50, _ in found])],
        one_scale=True,
    )


def priorities() -> str:
    parts = (0.5, 0.75, 0.9, 1.0, 1.1, 1.2)
    found = [asyncio.run(loads.levels(SECONDS, load, priority="level")) for load in parts]
    return chart(
        "One of ten calls has a priority of 5",
        "load, as a part of what full batches can carry",
        [f"{load:.0%}" for load in parts],
        [
            ("median of the others, ms", GREY, [one["others"] for one in found]),
            ("median of the urgent, ms", RED, [one["urgent"] for one in found]),
        ],
        one_scale=True,
    )


def single_flight() -> str:
    texts = (10, 50, 200, 1000, 10_000)
    on, off = (
        [asyncio.run(loads.zipf(SECONDS, number, single_flight=flag))["calls/s"] for number in texts]
        for flag in (True, False)
    )
    return chart(
        "64 callers who ask for texts of which few are frequent (Zipf's law, 1.1)",
        "different texts",
        [str(number) for number in texts],
        [("calls a second with single_flight", BLUE, on), ("without", GREY, off)],
        one_scale=True,
    )


def target() -> str:
    parts = (0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0)
    on, off = (
        [100 * asyncio.run(loads.goodput(SECONDS, load, 0.2, **options))["goodput"] for load in parts]
        for options in ({"latency_target": 200}, {})
    )
    return chart(
        "Answers within 200 ms, in percent of what full batches can carry",
        "load",
        [f"{load:.0%}" for load in parts],
        [("with latency_target=200", BLUE, on), ("without", GREY, off)],
        one_scale=True,
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs")
    for draw in (lengths, tenants, bulk, priorities, single_flight, target):
        (folder / f"batching-{draw.__name__.replace('_', '-')}.svg").write_text(draw())
        print(draw.__name__, flush=True)
