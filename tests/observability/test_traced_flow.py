"""Spans of a Flow: a connected trace through its nodes, of which one is pooled and batched, and one streams."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from jina_asgi import Deployment, Flow, JinaASGI
from tests.doubles.otlp_receiver import ReceivedSpan, Receiver, named
from tests.doubles.traced_executors import Plain, Text, Traced
from tests.doubles.uvicorn_server import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def connected(spans: Sequence[ReceivedSpan], root: ReceivedSpan) -> list[ReceivedSpan]:
    """The root and all spans below it; from a wait that is linked to a batch, the batch and all below that too."""
    found = [root]
    for span in found:
        found += [other for other in spans if other.parent == span.id and other not in found]
        found += [other for other in spans if other.id in span.links and other.name == "batch" and other not in found]
    return found


async def test_nodes_are_children_of_the_request_and_methods_of_their_nodes(receiver: Receiver) -> None:
    flow = Flow(name="pipe", tracing=True, traces_exporter_port=receiver.port)
    flow = flow.add(uses=Plain, name="one").add(uses=Plain, name="left").add(uses=Plain, name="right", needs="one")
    flow = flow.needs_all(name="both")
    async with serving(JinaASGI(flow), lifespan="on") as port, httpx.AsyncClient() as http:
        answer = await http.post(f"http://127.0.0.1:{port}/async", json={"data": [{"text": "hi"}]})
        assert answer.status_code == 200
    spans = receiver.wait_for(lambda spans: 3 == sum(span.name == "/async" for span in spans) and len(spans) == 10)
    request = named(spans, "POST /async")
    assert "pipe" == request.service
    for node in ("one", "left", "right"):
        span = named(spans, f"node {node}")
        assert (request.id, "pipe") == (span.parent, span.service)
        (method,) = [span for span in spans if span.name == "/async" and span.service == node]
        assert span.id == method.parent
        assert [method.id] == [span.parent for span in spans if span.name == "in async" and span.service == node]


async def test_a_call_of_a_flow_without_a_server_is_one_trace(receiver: Receiver) -> None:
    flow = Flow(tracing=True, traces_exporter_port=receiver.port).add(uses=Traced, name="a").add(uses=Traced, name="b")
    async with flow:
        await flow.call("/async", [Text()])
    spans = receiver.wait_for(lambda spans: 2 == sum(span.name == "/async" for span in spans) and len(spans) == 7)
    assert {named(spans, "call /async").trace} == {span.trace for span in spans}


@asynccontextmanager
async def external(receiver: Receiver, protocol: str) -> AsyncIterator[int]:
    """A server elsewhere, by this protocol."""
    far = Deployment(uses=Traced, name="far", tracing=True, traces_exporter_port=receiver.port)
    if protocol == "http":
        async with serving(JinaASGI(far), lifespan="on") as port:
            yield port
    else:
        from jina_asgi import GRPCSidecar

        async with GRPCSidecar(far) as sidecar:
            assert sidecar.port is not None
            yield sidecar.port


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("path", ["/async", "/stream"])
async def test_an_external_node_continues_the_trace_in_its_own_server(
    receiver: Receiver, protocol: str, path: str
) -> None:
    async with external(receiver, protocol) as port:
        flow = Flow(tracing=True, traces_exporter_port=receiver.port, name="near")
        flow = flow.add(name="node", external=True, host=f"{protocol}://127.0.0.1:{port}")
        async with flow:
            if path == "/stream":
                assert 3 == len([doc async for doc in flow.stream(path, {"text": "hi"})])
            else:
                await flow.call(path, [{"text": "hi"}])
        spans = receiver.wait_for(
            lambda spans: (
                {"client", "server"} <= {span.kind for span in spans}
                and {path, f"call {path}", "node node"} <= {span.name for span in spans}
            )
        )
    (sent,) = [span for span in spans if span.kind == "client"]
    (received,) = [span for span in spans if span.kind == "server"]
    assert (named(spans, "node node").id, sent.id, received.id) == (
        sent.parent,
        received.parent,
        named(spans, path).parent,
    )
    assert ("node", "far") == (sent.service, received.service)
    assert {named(spans, f"call {path}").trace} == {span.trace for span in spans}
    if protocol == "grpc":
        rpc = "process_single_data" if path == "/async" else "stream_doc"
        assert {rpc} == {sent.attributes["rpc.method"], received.attributes["rpc.method"]}
    if path == "/stream":
        assert {3} == {span.attributes["jina.documents.streamed"] for span in (sent, received)}


@pytest.mark.processes
async def test_a_flow_of_three_nodes_with_a_pooled_batch_and_a_stream_is_one_connected_trace(
    receiver: Receiver,
) -> None:
    """The second node is a pool that batches this call with eight others; the third streams."""
    pool = Deployment(
        uses=Traced, name="pool", replicas=1, placement="pool", tracing=True, traces_exporter_port=receiver.port
    )
    options = {"tracing": True, "traces_exporter_port": receiver.port}
    flow = Flow(name="whole", **options).add(uses=Traced, name="first", uses_requests={"/whole": "asynchronous"})
    flow = flow.add(pool, name="second").add(uses=Traced, name="third", uses_requests={"/whole": "stream"}, **options)
    app = JinaASGI(flow, startup_wait=60)
    others = JinaASGI(pool, startup_wait=60)
    async with (
        serving(app, lifespan="on") as port,
        serving(others, lifespan="on") as other_port,
        httpx.AsyncClient(timeout=60) as http,
    ):
        url, other_url = f"http://127.0.0.1:{port}/whole", f"http://127.0.0.1:{other_port}/whole"
        body = {"data": [{"text": "other"}]}
        answers = await asyncio.gather(
            http.post(url, json={"data": {"text": "ours"}}, headers={"traceparent": PARENT}),
            *(http.post(other_url, json=body) for _ in range(8)),
        )
        assert {200} == {answer.status_code for answer in answers}
        assert 3 == answers[0].text.count("event: update")
        expected = {"POST /whole": 9, "batch": 1, "/whole": 3, "around yields": 1}
        expected |= {f"node {name}": 1 for name in ("first", "second", "third")}
        spans = receiver.wait_for(
            lambda spans: (
                Counter(expected) <= Counter(span.name for span in spans)
                and 9 == sum(len(span.links) for span in spans if span.name == "queue")
            )
        )
    ours = next(span for span in spans if span.trace == TRACE and span.kind == "server")
    trace = connected(spans, ours)
    assert {"node first", "node second", "node third", "queue", "batch", "around yields"} <= {
        span.name for span in trace
    }
    assert [span for span in spans if span.trace == TRACE and span not in trace] == []
    third = named(trace, "node third")
    assert (("first document",), 3) == (third.events, third.attributes["jina.documents.streamed"])
    batch = named(spans, "batch")
    assert (9, 9) == (len(batch.links), batch.attributes["jina.batch.requests"])
    callers = [span for span in spans if span.kind == "server" and span is not ours] + [named(spans, "node second")]
    assert {*batch.links} == {caller.id for caller in callers}
    assert 9 == len({caller.trace for caller in callers})
    (method,) = [span for span in spans if span.parent == batch.id]
    assert ("/whole", 9) == (method.name, method.attributes["jina.documents"])
    for caller in callers:
        assert batch in connected(spans, caller)
        (wait,) = [span for span in spans if span.parent == caller.id and span.name == "queue" and span.links]
        assert (caller.trace, (batch.id,)) == (wait.trace, wait.links)
