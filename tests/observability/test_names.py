"""Jina's metrics, what Executors monitor, and the figures of nodes and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, Flow, JinaASGI, monitor, requests
from jina_asgi.testing import client
from tests.doubles.metered import Model, of, samples


class Text(BaseDoc):
    text: str = ""


class Monitored(Executor):
    @monitor(name="encoding_seconds", documentation="Time of encoding")
    @requests(on="/encode")
    def encode(self, docs: DocList[Text]) -> DocList[Text]:
        with self.monitor("a part of it", "Time of a part"):
            pass
        return docs

    @monitor
    @requests(on="/process_request")
    def process_request(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Text) -> AsyncIterator[Text]:
        for _ in range(3):
            yield doc
            await asyncio.sleep(0.02)


BODY = {"data": [{"text": "x"}, {"text": "y"}]}


async def test_dashboards_for_jina_find_its_names_and_labels() -> None:
    async with client(JinaASGI(Deployment(Model, name="as-jina"), metrics=True, wait_ready=True)) as http:
        for path in ("/echo", "/echo", "/bad"):
            await http.post(path, json=BODY)
        found = samples((await http.get("/-/metrics")).text)
    runtime = "runtime_name=as-jina"
    assert {(): 2} == of(found, "jina_successful_requests_total", runtime)
    assert {(): 1} == of(found, "jina_failed_requests_total", runtime)
    assert {(): 3} == of(found, "jina_receiving_request_seconds_count", runtime)
    assert {(): 3} == of(found, "jina_received_request_bytes_count", runtime)
    assert ("jina_number_of_pending_requests", runtime) in found
    of_executor = ("executor=as-jina", "executor_endpoint=/echo", runtime)
    assert {(): 2} == of(found, "jina_process_request_seconds_count", *of_executor)
    assert {(): 4} == of(found, "jina_document_processed_total", *of_executor)


async def test_each_monitored_name_is_a_metric_as_in_jina() -> None:
    async with client(JinaASGI(Deployment(Monitored, name="watched"), metrics=True, wait_ready=True)) as http:
        for path in ("/encode", "/encode", "/process_request"):
            await http.post(path, json=BODY)
        page = (await http.get("/-/metrics")).text
    found = samples(page)
    for name, count in (("encoding_seconds", 2), ("a_part_of_it", 2), ("monitored_process_request_seconds", 1)):
        assert {(): count} == of(found, f"jina_{name}_count", "runtime_name=watched")
        assert len(of(found, f"jina_{name}_sum", "runtime_name=watched")) == 1
    assert "# HELP jina_encoding_seconds Time of encoding\n" in page


async def test_each_node_of_a_flow_shows_its_time() -> None:
    flow = Flow(name="timed-flow").add(uses=Model, name="first").add(uses=Model, name="second")
    async with client(JinaASGI(flow, metrics=True, wait_ready=True)) as http:
        await http.post("/echo", json=BODY)
        found = samples((await http.get("/-/metrics")).text)
    times = of(found, "jina_asgi_node_seconds_sum", "deployment=timed-flow", "endpoint=/echo")
    assert {("node=first",), ("node=second",), ("node=timed-flow",)} == times.keys()
    assert times["node=first",] + times["node=second",] <= times["node=timed-flow",]


async def test_a_stream_shows_its_first_document_and_the_time_between_others() -> None:
    async with client(JinaASGI(Deployment(Monitored, name="streaming"), metrics=True, wait_ready=True)) as http:
        await http.post("/stream", json={"data": {"text": "x"}})
        found = samples((await http.get("/-/metrics")).text)
    labels = ("deployment=streaming", "endpoint=/stream")
    assert {(): 3} == of(found, "jina_asgi_stream_documents_total", *labels)
    assert {(): 1} == of(found, "jina_asgi_stream_first_document_seconds_count", *labels)
    assert {(): 2} == of(found, "jina_asgi_stream_document_interval_seconds_count", *labels)
    assert of(found, "jina_asgi_stream_document_interval_seconds_sum", *labels)[()] >= 0.03
