"""The figures of the page, made of what Runners report."""

from __future__ import annotations

from typing import Any

from jina_asgi.observability.metrics import (
    BATCH_ITEMS,
    CALL_FAILURES,
    CALLS,
    CALLS_RUNNING,
    QUEUE_ITEMS,
    QUEUE_SECONDS,
    REQUEST_SECONDS,
)
from jina_asgi.serving._page_figures import changes, figures_of, with_sums

QUEUE = {"pending": 5, "rejected": {"calls": 2, "bytes": 1}}
COUNTS: dict[str, Any] = {
    "calls": 7,
    "streams": 1,
    "in_flight": 2,
    "failures": {"ExecutorError": 3, "CancelledError": 4},
}
BATCHED = {"queued": 4, "batch_sizes": {"2": 3, "8": 1}, "mean_wait_ms": 10.0}
REPLICA = {"state": "ready", "pid": 1, "device": "cuda:0", "in_flight": 2, "answered": 9, "restarts": 1}


def test_streams_are_calls_and_callers_that_left_are_no_errors() -> None:
    found = figures_of("one", {**COUNTS, "queue": QUEUE})["one"]
    assert {"calls": 8, "running": 2, "errors": 3, "failures": {"ExecutorError": 3}, "refused": 3} == found


def test_batches_have_their_sizes_and_the_time_that_their_items_waited() -> None:
    found = figures_of("one", {**COUNTS, "batching": {"/a": BATCHED, "/b": BATCHED}})["one"]
    assert (8, 8, 28, 0.28) == tuple(found[key] for key in ("queue", "batches", "items", "waited"))


def test_replicas_are_shown_with_their_devices_and_what_waits_for_them() -> None:
    failed = {**REPLICA, "state": "waiting", "in_flight": 0, "failure": {"type": "ValueError", "id": "1"}}
    found = figures_of("one", {**COUNTS, "queue": QUEUE, "replicas": {"one/rep-0": REPLICA, "one/rep-1": failed}})[
        "one"
    ]
    first, second = found["replicas"]
    assert {
        "name": "one/rep-0",
        "state": "ready",
        "device": "cuda:0",
        "in_flight": 2,
        "answered": 9,
        "restarts": 1,
    } == first
    assert "ValueError" == second["failure"]["type"]
    assert 3 == found["queue"]


def test_before_the_pool_host_has_reported_the_workers_own_counts_are_shown() -> None:
    assert 8 == figures_of("one", {"worker": COUNTS})["one"]["calls"]


def test_shards_and_the_nodes_of_an_inner_flow_are_added_up() -> None:
    part = {"batching": {"/a": BATCHED}, "queue": QUEUE}
    for status in (
        {**COUNTS, "shards": {"a": part, "b": part}},
        {**COUNTS, "nodes": {"in": {"nodes": {"a": part, "b": part}}}},
    ):
        found = figures_of("one", status)
        node = found.get("one") or found["in"]
        assert (8, 6) == (node["queue"], node["refused"])


def test_only_what_differs_is_sent() -> None:
    before = {"a": {"calls": 1, "errors": 0}, "b": {"calls": 1}}
    assert {"a": {"calls": 2}, "c": {"calls": 1}} == changes(
        before, {"a": {"calls": 2, "errors": 0}, "b": {"calls": 1}, "c": {"calls": 1}}
    )


def test_sums_of_the_server_take_the_place_of_one_processs_figures() -> None:
    own = {
        "": {"calls": 1, "running": 0, "errors": 0, "failures": {}},
        "a": {"calls": 1, "running": 0, "errors": 0, "failures": {}, "replicas": []},
        "b": {"calls": 1, "running": 1, "errors": 0, "failures": {}},
    }
    sums = {
        (CALLS.name, ("flow",)): [9.0],
        (REQUEST_SECONDS.name, ("flow", "/one", "http")): [1.0, 2.0, 0.5],
        (REQUEST_SECONDS.name, ("flow", "/two", "grpc")): [3.0, 0.0, 0.25],
        (CALLS.name, ("a",)): [4.0],
        (CALLS.name, ("model",)): [5.0],
        (CALLS_RUNNING.name, ("a",)): [2.0],
        (CALL_FAILURES.name, ("a", "ExecutorError")): [3.0],
        (CALL_FAILURES.name, ("a", "CancelledError")): [2.0],
        (QUEUE_ITEMS.name, ("a", "/one")): [6.0],
        (QUEUE_ITEMS.name, ("a", "/two")): [1.0],
        (BATCH_ITEMS.name, ("a", "/one")): [1.0, 3.0, 20.0],
        (QUEUE_SECONDS.name, ("a", "/one")): [15.0, 5.0, 0.2],
        (CALLS.name, ("another",)): [100.0],
    }
    found = with_sums(own, {"": {"flow"}, "a": {"a", "model"}, "b": {"b"}}, sums)
    assert {"calls": 9, "running": 0, "errors": 0, "failures": {}, "times": [4, 2], "waited": 0.75} == found[""]
    assert {
        "calls": 9,
        "running": 2,
        "errors": 3,
        "failures": {"ExecutorError": 3},
        "replicas": [],
        "queue": 7,
        "batches": 4,
        "items": 20,
        "times": [15, 5],
        "waited": 0.2,
    } == found["a"]
    assert {**own["b"]} == found["b"]
