"""Spans of one process, as a real receiver of OTLP gets them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from jina_asgi import Deployment, JinaASGI
from tests.doubles.otlp_receiver import Receiver, named
from tests.doubles.traced_executors import Text, Traced
from tests.doubles.uvicorn_server import serving

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced(receiver: Receiver, **options: Any) -> Deployment:
    return Deployment(uses=Traced, name="traced", tracing=True, traces_exporter_port=receiver.port, **options)


def body(text: str = "hi") -> dict[str, Any]:
    return {"data": [{"text": text}]}


async def posted(app: Any, path: str, **options: Any) -> httpx.Response:
    async with serving(app, lifespan="on") as port, httpx.AsyncClient() as http:
        return await http.post(f"http://127.0.0.1:{port}{path}", **options)


async def test_a_request_is_a_child_of_its_client_and_the_method_of_the_request(receiver: Receiver) -> None:
    answer = await posted(JinaASGI(traced(receiver)), "/sync", json=body(), headers={"traceparent": PARENT})
    assert answer.status_code == 200
    spans = receiver.wait_for_names("POST /sync", "/sync", "in sync")
    request, method, own = named(spans, "POST /sync"), named(spans, "/sync"), named(spans, "in sync")
    assert {"0af7651916cd43dd8448eb211c80319c"} == {span.trace for span in (request, method, own)}
    assert ("server", "b7ad6b7169203331") == (request.kind, request.parent)
    assert (request.id, method.id) == (method.parent, own.parent)
    assert {"traced"} == {span.service for span in spans}
    assert 200 == request.attributes["http.response.status_code"]
    assert ("POST", "/sync") == (request.attributes["http.request.method"], request.attributes["http.route"])
    assert ("Traced", 1) == (method.attributes["jina.executor"], method.attributes["jina.documents"])


async def test_a_span_of_the_users_in_an_asynchronous_method_is_a_child_of_the_methods(receiver: Receiver) -> None:
    await posted(JinaASGI(traced(receiver)), "/async", json=body())
    spans = receiver.wait_for_names("POST /async", "/async", "in async")
    assert named(spans, "/async").id == named(spans, "in async").parent
    assert named(spans, "POST /async").parent == ""


@pytest.mark.parametrize(
    ("path", "around", "each"), [("/stream", "around yields", "yield"), ("/steps", "around steps", "step")]
)
async def test_spans_of_a_generator_nest_across_its_yields(
    receiver: Receiver, path: str, around: str, each: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await posted(JinaASGI(traced(receiver)), path, json={"data": {"text": "hi"}})
    assert answer.text.count("event: update") == 3
    spans = receiver.wait_for_names(f"POST {path}", path, around)
    method = named(spans, path)
    assert method.id == named(spans, around).parent
    assert {named(spans, around).id} == {named(spans, f"{each} {number}").parent for number in range(3)}
    assert (("first document",), 3) == (method.events, method.attributes["jina.documents.streamed"])
    request = named(spans, f"POST {path}")
    assert (("first document",), 3) == (request.events, request.attributes["jina.documents.streamed"])
    assert "detach" not in caplog.text


async def test_an_error_is_recorded_by_its_type_and_never_with_a_documents_content(receiver: Receiver) -> None:
    await posted(JinaASGI(traced(receiver)), "/fail", json=body("swordfish"))
    spans = receiver.wait_for_names("POST /fail", "/fail")
    request, method = named(spans, "POST /fail"), named(spans, "/fail")
    assert ("ValueError", True) == (method.attributes["error.type"], method.failed)
    assert (500, True) == (request.attributes["http.response.status_code"], request.failed)
    assert "swordfish" not in repr(spans)


@pytest.mark.parametrize("path", ["/sync", "/stream", "/refuse"])
async def test_a_clients_error_is_not_an_error_of_the_server(receiver: Receiver, path: str) -> None:
    data: Any = {"text": "hi"} if path == "/refuse" else {"text": {"no": "text"}}
    await posted(JinaASGI(traced(receiver)), path, json={"data": [data] if path == "/sync" else data})
    request = named(receiver.wait_for_names(f"POST {path}"), f"POST {path}")
    assert ("InvalidDocs", 422, False) == (
        request.attributes["error.type"],
        request.attributes["http.response.status_code"],
        request.failed,
    )


async def test_a_client_that_leaves_is_recorded_as_cancelled(receiver: Receiver) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await posted(JinaASGI(traced(receiver)), "/wait", json=body(), timeout=0.3)
    spans = receiver.wait_for_names("POST /wait", "/wait")
    assert ["cancelled", "cancelled"] == [
        named(spans, name).attributes["error.type"] for name in ("POST /wait", "/wait")
    ]
    assert 499 == named(spans, "POST /wait").attributes["http.response.status_code"]


async def test_a_batch_and_its_calls_are_linked_to_one_another(receiver: Receiver) -> None:
    async with serving(JinaASGI(traced(receiver)), lifespan="on") as port, httpx.AsyncClient() as http:
        await asyncio.gather(*(http.post(f"http://127.0.0.1:{port}/batch", json=body(f"{n}")) for n in range(4)))
    spans = receiver.wait_for(lambda spans: 4 == sum(span.name == "POST /batch" for span in spans))
    callers = {span.id: span for span in spans if span.name == "POST /batch"}
    batches = {span.id: span for span in spans if span.name == "batch"}
    waits = [span for span in spans if span.name == "queue" and span.links]
    assert 4 == len({span.trace for span in callers.values()}) == len(waits)
    for batch in batches.values():
        linked = [wait for wait in waits if wait.links == (batch.id,)]
        assert len(linked) == len(batch.links) == batch.attributes["jina.batch.requests"]
        assert {wait.parent for wait in linked} == {*batch.links}
        assert {callers[wait.parent].trace for wait in linked} == {wait.trace for wait in linked}
        assert batch.parent in batch.links
        (method,) = [span for span in spans if span.name == "/batch" and span.parent == batch.id]
        assert [method.id] == [span.parent for span in spans if span.name == "in batch" and span.parent == method.id]


async def test_without_a_server_a_call_has_a_span_of_its_own(receiver: Receiver) -> None:
    async with traced(receiver) as deployment:
        await deployment.call("/async", [Text()])
    spans = receiver.wait_for_names("call /async", "/async")
    assert named(spans, "call /async").id == named(spans, "/async").parent


async def test_spans_are_exported_over_http_where_the_environment_says_so(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    async with Deployment(uses=Traced, tracing=True, traces_exporter_port=receiver.http_port) as deployment:
        await deployment.call("/async", [Text()])
    receiver.wait_for_names("call /async", "/async")


async def test_traces_are_sampled_as_a_whole(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    async with serving(JinaASGI(traced(receiver)), lifespan="on") as port, httpx.AsyncClient() as http:
        for _ in range(100):
            assert (await http.post(f"http://127.0.0.1:{port}/sync", json=body())).status_code == 200
    names: dict[str, set[str]] = {}
    for span in receiver.wait_for_names("POST /sync", "/sync", "in sync"):
        names.setdefault(span.trace, set()).add(span.name)
    assert 0 < len(names) < 100
    assert all({"POST /sync", "/sync", "in sync"} <= found for found in names.values())


async def test_a_dropped_trace_is_passed_on_as_dropped_and_a_recorded_callers_is_recorded(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    async with serving(JinaASGI(Traced), lifespan="on") as far:
        near = Deployment(
            name="near", external=True, host=f"http://127.0.0.1:{far}", tracing=True, traces_exporter_port=receiver.port
        )
        async with serving(JinaASGI(near, startup_wait=10), lifespan="on") as port, httpx.AsyncClient() as http:
            url = f"http://127.0.0.1:{port}/headers"
            dropped = (await http.post(url, json=body())).json()["data"][0]["text"]
            kept = (await http.post(url, json=body(), headers={"traceparent": PARENT})).json()["data"][0]["text"]
    spans = receiver.wait_for(lambda spans: {"client", "server"} <= {span.kind for span in spans})
    assert ("00", "01") == (dropped[-2:], kept[-2:])
    assert {PARENT[3:35]} == {span.trace for span in spans}
    assert kept.split("-")[2] == named([span for span in spans if span.kind == "client"], "POST /headers").id
