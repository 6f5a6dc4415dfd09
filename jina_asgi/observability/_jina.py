"""The metrics under Jina's names and with its labels, made of our own, so that dashboards for Jina go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from jina_asgi.observability.metrics import (
    DOCUMENTS,
    FAILED,
    IN_FLIGHT,
    METRICS,
    MONITORED,
    NODE_SECONDS,
    OF_JINA,
    PENDING,
    PROCESS_SECONDS,
    PROCESSED,
    RECEIVED_BYTES,
    RECEIVING,
    REQUEST_BYTES,
    REQUEST_SECONDS,
    REQUESTS,
    SUCCESSFUL,
    Metric,
)

Labels = tuple[str, ...]
Numbers = dict[Labels, list[float]]


def _runtime(labels: Labels) -> Labels:
    return (labels[0],)


def _executor(labels: Labels) -> Labels:
    deployment, endpoint = labels[0], labels[1]
    return endpoint, deployment, deployment


def _node(labels: Labels) -> Labels:
    _, endpoint, node = labels
    return endpoint, node, node


#: Each of Jina's metrics: the one that it is made of, and how its labels are.
_MADE: Mapping[Metric, tuple[Metric, Callable[[Labels], Labels]]] = {
    RECEIVING: (REQUEST_SECONDS, _runtime),
    PENDING: (IN_FLIGHT, _runtime),
    SUCCESSFUL: (REQUESTS, _runtime),
    FAILED: (REQUESTS, _runtime),
    RECEIVED_BYTES: (REQUEST_BYTES, _runtime),
    PROCESS_SECONDS: (NODE_SECONDS, _node),
    PROCESSED: (DOCUMENTS, _executor),
}


def jinas(found: Mapping[str, Numbers]) -> dict[Metric, Numbers]:
    """Jina's metrics, of the numbers of ours by metric and label values."""
    made: dict[Metric, Numbers] = {}
    for metric in OF_JINA:
        source, relabelled = _MADE[metric]
        numbers: Numbers = {}
        for labels, its in found.get(source.name, {}).items():
            if source is REQUESTS and (labels[-1] == "ok") != (metric is SUCCESSFUL):
                continue
            _add(numbers, relabelled(labels), its)
        if numbers:
            made[metric] = numbers
    return made


_TAKEN = {metric.name for metric in (*METRICS, *OF_JINA)}


def monitored(found: Mapping[str, Numbers]) -> dict[Metric, Numbers]:
    """A metric for each name that an Executor monitors: `jina_<name>`."""
    by_name: dict[str, tuple[str, Numbers]] = {}
    for (name, documentation, runtime), its in sorted(found.get(MONITORED.name, {}).items()):
        shown = f"jina_{re.sub('[^a-zA-Z0-9_]', '_', name)}"
        if shown in _TAKEN:
            shown = f"jina_monitored_{shown.removeprefix('jina_')}"
        _, numbers = by_name.setdefault(shown, (documentation or MONITORED.help, {}))
        _add(numbers, (runtime,), its)
    return {
        Metric(name, "histogram", documentation, ("runtime_name",), MONITORED.buckets): numbers
        for name, (documentation, numbers) in by_name.items()
    }


def _add(numbers: Numbers, labels: Labels, more: Sequence[float]) -> None:
    had = numbers.get(labels)
    numbers[labels] = [*more] if had is None else [one + other for one, other in zip(had, more, strict=True)]
