"""The figures that the page shows, flat and small: of each node, from what its Runner reports, and the sums of all processes.

Counts only grow; the page makes rates of them. Pure: mappings in, mappings out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jina_asgi.observability.metrics import (
    BATCH_ITEMS,
    CALL_FAILURES,
    CALLS,
    CALLS_RUNNING,
    QUEUE_ITEMS,
    QUEUE_SECONDS,
    REFUSALS,
    REQUEST_SECONDS,
    Metric,
)

Figures = dict[str, Any]
#: By metric and label values: a number, or a histogram's counts and sum.
Sums = Mapping[tuple[str, tuple[str, ...]], Sequence[float]]
_SUMMED = {"calls": CALLS, "running": CALLS_RUNNING, "refused": REFUSALS, "queue": QUEUE_ITEMS}
#: The upper bounds of the times in the figures, in seconds; the last count has none.
BOUNDS = QUEUE_SECONDS.buckets
assert BOUNDS == REQUEST_SECONDS.buckets
#: What ends calls without being an error: the caller left.
_LEFT = frozenset({"CancelledError", "Closed", "GeneratorExit"})


def figures_of(name: str, status: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the figures of each node of a Flow, or of a Deployment's single node, which is named `name`; "": the whole.

    Args:
        name: the name of the source.
        status: what its Runner reports for `/-/status`.
    """
    nodes = {node: _figures(found) for node, found in status.get("nodes", {name: status}).items()}
    return {"": _counts(status), **nodes}


def with_sums(figures: Mapping[str, Figures], names: Mapping[str, Collection[str]], sums: Sums) -> dict[str, Figures]:
    """Return the figures of one process with those in their places that are sums of all processes of the server.

    Args:
        figures: those of this process, by node.
        names: the names under which the figures of each node are summed up.
        sums: the figures of the server.
    """
    failures: dict[str, Counter[str]] = {}
    totals: dict[tuple[str, str], list[float]] = {}
    for (metric, labels), numbers in sums.items():
        if metric == CALL_FAILURES.name:
            failures.setdefault(labels[0], Counter())[labels[1]] += int(numbers[0])
        others = totals.get((metric, labels[0]), [0.0] * len(numbers))
        totals[metric, labels[0]] = [one + other for one, other in zip(numbers, others, strict=True)]

    def total(metric: Metric, node: str) -> list[float] | None:
        found = [totals[metric.name, name] for name in names[node] if (metric.name, name) in totals]
        return [sum(numbers) for numbers in zip(*found, strict=True)] if found else None

    merged: dict[str, Figures] = {}
    for node, known in figures.items():
        of = merged[node] = dict(known)
        for key, of_all in _SUMMED.items():
            if found := total(of_all, node):
                of[key] = int(found[0])
        if node and (found := total(BATCH_ITEMS, node)):
            of["batches"], of["items"] = int(sum(found[:-1])), int(found[-1])
        if found := total(QUEUE_SECONDS if node else REQUEST_SECONDS, node):
            of["times"], of["waited"] = [int(count) for count in found[:-1]], round(found[-1], 3)
        of["failures"] = _errors(sum((failures.get(name, Counter()) for name in names[node]), Counter()))
        of["errors"] = sum(of["failures"].values())
    return merged


def changes(before: Mapping[str, Figures], now: Mapping[str, Figures]) -> dict[str, Figures]:
    """Return the figures of `now` that differ from those of `before`, by node; nodes without any are left out."""
    found = {}
    for node, figures in now.items():
        known = before.get(node, {})
        if changed := {key: value for key, value in figures.items() if key not in known or known[key] != value}:
            found[node] = changed
    return found


def _figures(status: Mapping[str, Any]) -> Figures:
    parts = list(_parts(status))
    batching = [batched for part in parts for batched in part.get("batching", {}).values()]
    sizes = [(int(size), count) for batched in batching for size, count in batched["batch_sizes"].items()]
    replicas = [_replica(name, one) for part in parts for name, one in part.get("replicas", {}).items()]
    figures: Figures = {
        **_counts(status),
        "refused": sum(sum(part.get("queue", {}).get("rejected", {}).values()) for part in parts),
    }
    if replicas:
        figures["replicas"] = replicas
        pending: int = sum(part["queue"]["pending"] for part in parts if "replicas" in part)
        figures["queue"] = max(pending - sum(replica["in_flight"] for replica in replicas), 0)
    if batching:
        figures |= {
            "queue": sum(batched["queued"] for batched in batching),
            "batches": sum(count for _, count in sizes),
            "items": sum(size * count for size, count in sizes),
            "waited": round(sum(_waited(batched) for batched in batching), 3),
        }
    return figures


def _counts(status: Mapping[str, Any]) -> Figures:
    counts = status if "calls" in status else status.get("worker", {})  # until the pool host has reported
    failures = _errors(counts.get("failures", {}))
    return {
        "calls": counts.get("calls", 0) + counts.get("streams", 0),
        "running": counts.get("in_flight", 0),
        "errors": sum(failures.values()),
        "failures": failures,
    }


def _errors(failures: Mapping[str, int]) -> dict[str, int]:
    return {kind: count for kind, count in failures.items() if kind not in _LEFT}


def _parts(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a status, and those of the shards and nodes within it."""
    yield status
    inner: Iterable[Any] = (*status.get("shards", {}).values(), *status.get("nodes", {}).values())
    for part in inner:
        yield from _parts(part)


def _waited(batched: Mapping[str, Any]) -> float:
    """The seconds that all items of an endpoint have waited."""
    items: int = sum(int(size) * count for size, count in batched["batch_sizes"].items())
    return items * (batched["mean_wait_ms"] or 0.0) / 1000


def _replica(name: str, status: Mapping[str, Any]) -> Figures:
    kept = ("state", "device", "in_flight", "answered", "restarts")
    failure = status.get("failure")
    return {"name": name, **{key: status[key] for key in kept}, **({"failure": failure} if failure else {})}
