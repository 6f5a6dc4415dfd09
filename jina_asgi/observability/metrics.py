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
CALLS = Metric(
    "jina_asgi_calls",
    "counter",
    "Calls and streams that a Deployment, a Flow or one of its nodes has begun. Those of a pool are counted by its host.",
    ("deployment",),
)
CALLS_RUNNING = Metric("jina_asgi_calls_running", "gauge", "Of these, the ones that wait or run now.", ("deployment",))
CALL_FAILURES = Metric(
    "jina_asgi_call_failures",
    "counter",
    'Of these, the ones that ended with an error, by its class if that is public, else "other".',
    ("deployment", "error"),
)
REQUEST_BYTES = Metric(
    "jina_asgi_request_bytes",
    "histogram",
    "Sizes of requests.",
    _CALL,
    (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0),
)
_OF_CALLS = ("deployment", "endpoint")
DOCUMENTS = Metric(
    "jina_asgi_documents", "counter", "Documents of the calls that were answered, streams aside.", _OF_CALLS
)
NODE_SECONDS = Metric(
    "jina_asgi_node_seconds",
    "histogram",
    "Time that each node of a Flow took for a call, waits included; of a Deployment, itself.",
    (*_OF_CALLS, "node"),
    _SECONDS,
)
STREAM_FIRST = Metric(
    "jina_asgi_stream_first_document_seconds", "histogram", "Time to a stream's first document.", _OF_CALLS, _SECONDS
)
STREAM_INTERVAL = Metric(
    "jina_asgi_stream_document_interval_seconds",
    "histogram",
    "Time from one document of a stream to the next.",
    _OF_CALLS,
    _SECONDS,
)
STREAM_DOCUMENTS = Metric("jina_asgi_stream_documents", "counter", "Documents of streams.", _OF_CALLS)
_OF_BATCHES = ("deployment", "endpoint")
QUEUE_CALLS = Metric(
    "jina_asgi_queue_calls", "gauge", "Calls that have a place in the queue, waiting or running.", ("deployment",)
)
QUEUE_BYTES = Metric("jina_asgi_queue_bytes", "gauge", "Bytes of the requests of these calls.", ("deployment",))
REFUSALS = Metric(
    "jina_asgi_refusals",
    "counter",
    "Calls that were refused, by reason: too many calls or bytes, the tenant's share, the latency target, the budget.",
    ("deployment", "reason"),
)
QUEUE_ITEMS = Metric("jina_asgi_batch_queue_items", "gauge", "Documents that wait for a batch.", _OF_BATCHES)
QUEUE_SECONDS = Metric(
    "jina_asgi_batch_queue_seconds", "histogram", "Time that documents waited for their batch.", _OF_BATCHES, _SECONDS
)
BATCHES_RUNNING = Metric("jina_asgi_batches_running", "gauge", "Batches that run now.", _OF_BATCHES)
BATCH_ITEMS = Metric(
    "jina_asgi_batch_items",
    "histogram",
    "Documents in a batch.",
    _OF_BATCHES,
    (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0),
)
BATCH_SECONDS = Metric(
    "jina_asgi_batch_seconds", "histogram", "Time from a batch's beginning to its answers.", _OF_BATCHES, _SECONDS
)
BATCH_ENDS = Metric(
    "jina_asgi_batch_unanswered_items",
    "counter",
    "Documents that no batch answered: their callers left, their deadline passed, or their batch failed.",
    (*_OF_BATCHES, "reason"),
)
BISECTIONS = Metric(
    "jina_asgi_batch_bisections", "counter", "Batches that failed and were tried again in halves.", _OF_BATCHES
)
SINGLE_FLIGHT = Metric(
    "jina_asgi_single_flight_hits", "counter", "Documents that were answered with an equal one's run.", _OF_BATCHES
)
REPLICAS = Metric("jina_asgi_replicas", "gauge", "Replicas, by state.", ("deployment", "state"))
REPLICA_RESTARTS = Metric(
    "jina_asgi_replica_restarts", "counter", "Starts of replicas after the first one.", ("deployment",)
)
REPLICA_DEATHS = Metric(
    "jina_asgi_replica_deaths", "counter", "Replicas that ended, or hung and were killed.", ("deployment",)
)
REPLICA_MEMORY = Metric(
    "jina_asgi_replica_memory_bytes", "gauge", "Resident memory of a replica.", ("deployment", "replica")
)
REPLICA_DEVICE = Metric(
    "jina_asgi_replica_device_info", "gauge", "Always 1: the devices of a replica.", ("deployment", "replica", "device")
)
POOL_CALLS = Metric(
    "jina_asgi_pool_calls",
    "counter",
    "Calls whose replica died: moved to another one, retried there, or lost.",
    ("deployment", "outcome"),
)
LOOP_LAG = Metric(
    "jina_asgi_loop_lag_seconds",
    "gauge",
    "The longest delay of the event loop in the last second, of the slowest web worker, or of the pool host.",
    ("process",),
    most=True,
)
BUILD_INFO = Metric(
    "jina_asgi_build_info",
    "gauge",
    "Always 1: the version of this library and of Python.",
    ("version", "python"),
    most=True,
)

METRICS: tuple[Metric, ...] = (
    REQUESTS,
    REQUEST_SECONDS,
    IN_FLIGHT,
    CALLS,
    CALLS_RUNNING,
    CALL_FAILURES,
    REQUEST_BYTES,
    DOCUMENTS,
    NODE_SECONDS,
    STREAM_FIRST,
    STREAM_INTERVAL,
    STREAM_DOCUMENTS,
    QUEUE_CALLS,
    QUEUE_BYTES,
    REFUSALS,
    QUEUE_ITEMS,
    QUEUE_SECONDS,
    BATCHES_RUNNING,
    BATCH_ITEMS,
    BATCH_SECONDS,
    BATCH_ENDS,
    BISECTIONS,
    SINGLE_FLIGHT,
    REPLICAS,
    REPLICA_RESTARTS,
    REPLICA_DEATHS,
    REPLICA_MEMORY,
    REPLICA_DEVICE,
    POOL_CALLS,
    LOOP_LAG,
    BUILD_INFO,
)
#: What `@monitor` and `self.monitor` time: shown as one metric for each name.
MONITORED = Metric(
    "jina_monitored", "histogram", "Timed by the Executor.", ("name", "documentation", "runtime_name"), _SECONDS
)

_RUNTIME = ("runtime_name",)
_EXECUTOR = ("executor_endpoint", "executor", "runtime_name")
RECEIVING = Metric(
    "jina_receiving_request_seconds", "histogram", "Jina's name: as jina_asgi_request_seconds.", _RUNTIME, _SECONDS
)
PENDING = Metric("jina_number_of_pending_requests", "gauge", "Jina's name: requests in flight.", _RUNTIME)
SUCCESSFUL = Metric("jina_successful_requests", "counter", "Jina's name: requests whose outcome is ok.", _RUNTIME)
FAILED = Metric("jina_failed_requests", "counter", "Jina's name: requests with any other outcome.", _RUNTIME)
RECEIVED_BYTES = Metric(
    "jina_received_request_bytes",
    "histogram",
    "Jina's name: as jina_asgi_request_bytes.",
    _RUNTIME,
    REQUEST_BYTES.buckets,
)
PROCESS_SECONDS = Metric(
    "jina_process_request_seconds", "histogram", "Jina's name: as jina_asgi_node_seconds.", _EXECUTOR, _SECONDS
)
PROCESSED = Metric("jina_document_processed", "counter", "Jina's name: as jina_asgi_documents.", _EXECUTOR)
#: Jina's, which are made of the others as they are read.
OF_JINA = (RECEIVING, PENDING, SUCCESSFUL, FAILED, RECEIVED_BYTES, PROCESS_SECONDS, PROCESSED)
BY_NAME = {metric.name: metric for metric in METRICS}
