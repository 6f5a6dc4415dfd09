"""Every metric, declared once: docs/observability.md is made from this table, and nothing else is ever exposed.

Units are seconds and bytes. Label values come from closed sets: an endpoint that does not exist is "other", and no text of
a client, and no tenant, is a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The label value of all endpoints that do not exist.
OTHER = "other"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: of a counter without `_total`, which the page adds.
        buckets: the upper bounds of a histogram.
        most: a gauge of the server is the greatest one of its processes, and not their sum.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    most: bool = False


_CALL = ("deployment", "endpoint", "protocol")

REQUESTS = Metric(
    "jina_asgi_requests",
    "counter",
    'Requests that have ended, by outcome: "ok", "cancelled", or the name of the public error.',
    (*_CALL, "outcome"),
)
REQUEST_SECONDS = Metric(
    "jina_asgi_request_seconds",
    "histogram",
    "Time from a request's headers to the end of its answer, streams included.",
    _CALL,
    _SECONDS,
)
IN_FLIGHT = Metric("jina_asgi_requests_in_flight", "gauge", "Requests that are being answered now.", _CALL)
BUILD_INFO = Metric(
    "jina_asgi_build_info",
    "gauge",
    "Always 1: the version of this library and of Python.",
    ("version", "python"),
    most=True,
)

METRICS: tuple[Metric, ...] = (REQUESTS, REQUEST_SECONDS, IN_FLIGHT, BUILD_INFO)
BY_NAME = {metric.name: metric for metric in METRICS}
