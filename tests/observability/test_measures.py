"""What is measured beside requests: statuses become figures that never fall, batches, and a loop that is late."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from jina_asgi import Deployment, Flow, JinaASGI
from jina_asgi.observability._statuses import figures_of
from jina_asgi.observability.figures import FIGURES
from jina_asgi.observability.measures import LoopLag, Statuses
from jina_asgi.observability.metrics import CALL_FAILURES, LOOP_LAG, QUEUE_CALLS, REFUSALS
from jina_asgi.testing import client
from tests.doubles.metered import Model, of, samples


def status(pending: int, refused: int) -> dict[str, Any]:
    return {"queue": {"pending": pending, "pending_bytes": 0, "rejected": {"calls": refused}}}


@pytest.fixture
def names(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The figures of a Deployment that no other test has."""
    name = request.node.name
    return FIGURES.figure(QUEUE_CALLS, name), FIGURES.figure(REFUSALS, name, "calls")


def test_counts_of_a_status_are_added_and_gauges_are_set(
    request: pytest.FixtureRequest, names: tuple[Any, Any]
) -> None:
    pending, refused = names
    looked, now = Statuses(), status(2, 3)
    with looked.follow(object(), request.node.name, lambda: now):
        looked.look()
        assert (2, 3) == (pending.value, refused.value)
        now = status(1, 5)
        looked.look()
        assert (1, 5) == (pending.value, refused.value)
        now = status(0, 2)  # it began to count anew
        looked.look()
        assert (0, 7) == (pending.value, refused.value)
        now = status(4, 3)
    assert (0, 8) == (pending.value, refused.value)


def test_a_runner_that_is_followed_twice_counts_once_and_two_are_added(
    request: pytest.FixtureRequest, names: tuple[Any, Any]
) -> None:
    pending, refused = names
    looked, name, one, other = Statuses(), request.node.name, object(), object()
    with looked.follow(one, name, lambda: status(1, 2)), looked.follow(one, name, lambda: status(1, 2)):
        with looked.follow(other, name, lambda: status(10, 20)):
            looked.look()
            assert (11, 22) == (pending.value, refused.value)
        assert (1, 22) == (pending.value, refused.value)


def test_a_worker_leaves_out_what_the_pool_host_reported() -> None:
    hosts = {**status(5, 5), "worker": status(1, 1), "host": {}}
    assert [] == [*figures_of("pooled", hosts)]
    assert [] == [*figures_of("flow", {"nodes": {"pooled": hosts}})]


async def test_batches_of_each_node_are_measured_under_its_name() -> None:
    flow = Flow(name="measured").add(uses=Model, name="one").add(uses=Model, name="two", shards=2, polling="ALL")
    async with client(JinaASGI(flow, metrics=True, wait_ready=True)) as http:
        body = {"data": [{"text": "x"}, {"text": "y"}]}
        assert (await http.post("/batched", json=body)).status_code == 200
        found = samples((await http.get("/-/metrics")).text)
    for node, batches in (("one", 1), ("two", 2)):
        of_node = (f"deployment={node}", "endpoint=/batched")
        assert {(): 2 * batches} == of(found, "jina_asgi_batch_items_sum", *of_node)
        assert {(): 2 * batches} == of(found, "jina_asgi_batch_queue_seconds_count", *of_node)
        assert {(): batches} == of(found, "jina_asgi_batch_seconds_count", *of_node)
        assert {} == of(found, "jina_asgi_batch_queue_items", *of_node)


async def test_a_source_that_is_served_twice_is_measured_once() -> None:
    source = Deployment(Model, name="twice", max_queue=1)
    one, other = (JinaASGI(source, metrics=True, wait_ready=True) for _ in range(2))
    async with client(one) as http, client(other):
        waiting = asyncio.ensure_future(http.post("/wait", json={"data": [{}]}))
        while not of(
            found := samples((await http.get("/-/metrics")).text), "jina_asgi_queue_calls", "deployment=twice"
        ):
            await asyncio.sleep(0.005)
        assert {(): 1} == of(found, "jina_asgi_queue_calls", "deployment=twice")
        assert (await http.post("/echo", json={"data": [{}]})).status_code == 503
        found = samples((await http.get("/-/metrics")).text)
        assert {("reason=calls",): 1} == of(found, "jina_asgi_refusals_total", "deployment=twice")
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_loop_that_is_held_shows_its_delay() -> None:
    lag, figure = LoopLag("of a test"), FIGURES.figure(LOOP_LAG, "of a test")
    lag.start()
    time.sleep(0.5)  # holds the loop
    lag.show()
    assert figure.value > 0.2
    async with asyncio.timeout(10.0):
        while figure.value > 0.2:
            await asyncio.sleep(0.01)
            lag.show()
    lag.stop()


def test_classes_of_errors_that_are_not_public_are_one_label() -> None:
    failures = {"ExecutorError": 2, "CancelledError": 1, **{f"Made{number}": 1 for number in range(1000)}}
    status = {"calls": 9, "streams": 0, "in_flight": 0, "failures": failures}
    counted: Counter[str] = Counter()
    for metric, labels, number in figures_of("one", status):
        if metric is CALL_FAILURES:
            counted[labels[1]] += int(number)
    assert counted == {"ExecutorError": 2, "CancelledError": 1, "other": 1000}
