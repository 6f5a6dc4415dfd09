"""The figures that are in a Runner's status already: what `/-/status` shows, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jina_asgi import errors
from jina_asgi.observability.metrics import (
    BATCH_ENDS,
    BATCHES_RUNNING,
    BISECTIONS,
    CALL_FAILURES,
    CALLS,
    CALLS_RUNNING,
    POOL_CALLS,
    QUEUE_BYTES,
    QUEUE_CALLS,
    QUEUE_ITEMS,
    REFUSALS,
    REPLICA_DEATHS,
    REPLICA_DEVICE,
    REPLICA_RESTARTS,
    REPLICAS,
    SINGLE_FLIGHT,
    Metric,
)

#: One figure: its metric, its label values, and its number.
Found = tuple[Metric, tuple[str, ...], float]

#: The classes of errors that are a label; a Runner of one's own may raise any, which counts as "other".
_ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)} | {"CancelledError", "Closed"}


def figures_of(deployment: str, status: Mapping[str, Any]) -> Iterator[Found]:
    """The figures of a status; the same figure may come several times, of several shards.

    What a pool host has reported is left out: it writes its figures itself.
    """
    for name, node in status.get("nodes", {}).items():
        yield from figures_of(name, node)
    if "host" in status:
        return
    if "calls" in status:
        yield CALLS, (deployment,), status["calls"] + status["streams"]
        yield CALLS_RUNNING, (deployment,), status["in_flight"]
        for error, count in status["failures"].items():
            yield CALL_FAILURES, (deployment, error if error in _ERRORS else "other"), count
    for shard in status.get("shards", {}).values():
        yield from figures_of(deployment, shard)
    if queue := status.get("queue"):
        yield QUEUE_CALLS, (deployment,), queue["pending"]
        yield QUEUE_BYTES, (deployment,), queue["pending_bytes"]
        for reason, count in queue["rejected"].items():
            yield REFUSALS, (deployment, reason), count
    for endpoint, batching in status.get("batching", {}).items():
        yield from _of_batching(deployment, endpoint, batching)
    for name, replica in status.get("replicas", {}).items():
        yield REPLICAS, (deployment, replica["state"]), 1
        yield REPLICA_RESTARTS, (deployment,), replica["restarts"]
        yield REPLICA_DEATHS, (deployment,), replica["deaths"]
        if replica["device"]:
            yield REPLICA_DEVICE, (deployment, name, replica["device"]), 1
    for outcome in ("moved", "retried", "lost"):
        if outcome in status:
            yield POOL_CALLS, (deployment, outcome), status[outcome]


def _of_batching(deployment: str, endpoint: str, batching: Mapping[str, Any]) -> Iterator[Found]:
    labels = deployment, endpoint
    yield QUEUE_ITEMS, labels, batching["queued"]
    yield BATCHES_RUNNING, labels, batching["running"]
    for reason in ("cancelled", "expired", "failed"):
        yield BATCH_ENDS, (*labels, reason), batching[reason]
    yield BISECTIONS, labels, batching["bisections"]
    yield SINGLE_FLIGHT, labels, batching.get("joined", 0)
    yield REFUSALS, (deployment, "budget"), batching["over_budget"]
    if "latency" in batching:
        yield REFUSALS, (deployment, "latency"), batching["latency"]["shed"]
