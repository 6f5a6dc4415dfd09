"""Spans of a pool: one trace through web worker, pool host and replica."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from jina_asgi import Deployment, JinaASGI
from tests.doubles.otlp_receiver import Receiver, named
from tests.doubles.rig import Served
from tests.doubles.traced_executors import Traced
from tests.doubles.uvicorn_server import serving

pytestmark = pytest.mark.processes


def pooled(receiver: Receiver, **options: Any) -> Deployment:
    return Deployment(
        uses=Traced,
        name="pooled",
        replicas=1,
        placement="pool",
        tracing=True,
        traces_exporter_port=receiver.port,
        **options,
    )


def body(text: str) -> dict[str, Any]:
    return {"data": [{"text": text}]}


async def test_one_trace_goes_through_the_pool_host_to_the_replica(receiver: Receiver) -> None:
    async with serving(JinaASGI(pooled(receiver), startup_wait=60), lifespan="on") as port, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{port}"
        for path, sent in (("/sync", body("hi")), ("/global", body("hi")), ("/steps", {"data": {"text": "hi"}})):
            answer = await http.post(f"{url}{path}", json=sent, timeout=60)
            assert answer.status_code == 200
            assert len(answer.text) > 0
        inner = {"/sync": "in sync", "/global": "by the global provider", "/steps": "around steps"}
        spans = receiver.wait_for_names(*inner, *inner.values(), *(f"POST {path}" for path in inner))
    for path, own in inner.items():
        request, method = named(spans, f"POST {path}"), named(spans, path)
        assert request.id == method.parent
        assert method.id == named(spans, own).parent
        assert "pooled" == method.service
        assert 0 == method.attributes["jina.replica"]
    assert 3 == named(spans, "/steps").attributes["jina.documents.streamed"]


async def test_a_batch_of_the_pool_host_is_linked_to_its_calls_and_the_replicas_method_is_its_child(
    receiver: Receiver,
) -> None:
    async with serving(JinaASGI(pooled(receiver), startup_wait=60), lifespan="on") as port, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{port}/batch"
        await http.post(url, json=body("first"), timeout=60)
        await asyncio.gather(*(http.post(url, json=body(f"{n}")) for n in range(4)))
        spans = receiver.wait_for(
            lambda spans: (
                5 == sum(span.name == "POST /batch" for span in spans)
                and 5 == sum(int(span.attributes["jina.documents"]) for span in spans if span.name == "/batch")
                and 5 == sum(len(span.links) for span in spans if span.name == "batch")
            )
        )
    callers = {span.id for span in spans if span.name == "POST /batch"}
    batches = [span for span in spans if span.name == "batch"]
    assert callers == {link for batch in batches for link in batch.links}
    for batch in batches:
        waits = [span for span in spans if span.name == "queue" and span.links == (batch.id,)]
        assert {*batch.links} == {wait.parent for wait in waits}
        (method,) = [span for span in spans if span.name == "/batch" and span.parent == batch.id]
        assert batch.attributes["jina.batch.size"] == method.attributes["jina.documents"] == len(batch.links)


async def test_a_call_that_waits_for_a_replica_says_so(receiver: Receiver) -> None:
    async with serving(JinaASGI(pooled(receiver), startup_wait=60), lifespan="on") as port, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{port}/slow"
        await asyncio.gather(*(http.post(url, json=body("0.2"), timeout=60) for _ in range(4)))
        spans = receiver.wait_for(
            lambda spans: Counter({"/slow": 4, "POST /slow": 4, "queue": 3}) <= Counter(span.name for span in spans)
        )
    waits = [span for span in spans if span.name == "queue"]
    assert max(wait.end - wait.start for wait in waits) >= 150_000_000
    assert {wait.parent for wait in waits} <= {span.id for span in spans if span.name == "POST /slow"}


def test_every_worker_of_gunicorn_has_whole_traces_though_the_application_is_preloaded(receiver: Receiver) -> None:
    env = {"RECEIVER": str(receiver.port), "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with Served("gunicorn-uvicorn", "tests.doubles.traced_app:app", "-w", "2", "--preload", env=env) as server:
        for number in range(20):  # each on a connection of its own, which any worker may accept
            answer = httpx.post(f"{server.url}/async", json=body(f"{number}"), timeout=60)
            assert 200 == answer.status_code
        whole = ["/async", "/async", "POST /async", "in async", "in async", "node one", "node two"]
        spans = receiver.wait_for(lambda spans: 20 * len(whole) <= sum(span.name != "queue" for span in spans))
    traces: dict[str, list[str]] = {}
    for span in spans:
        if span.name != "queue":
            traces.setdefault(span.trace, []).append(span.name)
    assert [whole] * 20 == [sorted(names) for names in traces.values()]
