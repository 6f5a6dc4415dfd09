"""A trace goes on from a Client, over each protocol, in the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import orjson
import pytest
import websockets
from opentelemetry import trace

from jina_asgi import Client, Deployment, JinaASGI
from tests.doubles.otlp_receiver import Receiver, named
from tests.doubles.traced_executors import Text, Traced
from tests.doubles.uvicorn_server import Serving, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def application(receiver: Receiver, **options: Any) -> JinaASGI:
    return JinaASGI(Deployment(uses=Traced, name="served", tracing=True, traces_exporter_port=receiver.port), **options)


@asynccontextmanager
async def address(receiver: Receiver, protocol: str) -> AsyncIterator[str]:
    app = application(receiver, grpc="127.0.0.1:0")
    async with serving(app, lifespan="on") as port:
        assert app.sidecar is not None
        yield f"{protocol}://127.0.0.1:{app.sidecar.port if protocol == 'grpc' else port}"


@pytest.mark.parametrize("protocol", ["http", "grpc", "ws"])
async def test_a_clients_request_is_the_parent_of_the_servers(receiver: Receiver, protocol: str) -> None:
    async with address(receiver, protocol) as host:
        async with Client(host=host, asyncio=True, tracing=True, traces_exporter_port=receiver.port) as client:
            async for _ in client.post("/async", Text(), return_type=Text):
                pass
            async for _ in client.post("/async", Text(), return_type=Text):
                pass
        spans = receiver.wait_for(
            lambda spans: (
                2 == sum(span.kind == "server" for span in spans) == sum(span.kind == "client" for span in spans)
            )
        )
    clients = {span.id: span for span in spans if span.kind == "client"}
    servers = [span for span in spans if span.kind == "server"]
    assert {*clients} == {span.parent for span in servers}
    assert 2 == len({span.trace for span in servers})
    assert {"client"} == {span.service for span in clients.values()}


@pytest.mark.parametrize("protocol", ["http", "grpc", "ws"])
async def test_a_clients_stream_is_the_parent_of_the_servers(receiver: Receiver, protocol: str) -> None:
    async with address(receiver, protocol) as host:
        async with Client(host=host, asyncio=True, tracing=True, traces_exporter_port=receiver.port) as client:
            assert 3 == len([doc async for doc in client.stream_doc("/stream", Text(), return_type=Text)])
        spans = receiver.wait_for_names("/stream", "around yields")
        spans = receiver.wait_for(lambda spans: {"client", "server"} <= {span.kind for span in spans})
    (sent,) = [span for span in spans if span.kind == "client"]
    (received,) = [span for span in spans if span.kind == "server"]
    assert (sent.id, received.id) == (received.parent, named(spans, "/stream").parent)
    assert {3} == {span.attributes["jina.documents.streamed"] for span in (sent, received)}
    assert {("first document",)} == {span.events for span in (sent, received)}


def test_a_blocking_clients_request_is_a_child_of_the_callers_span(receiver: Receiver) -> None:
    context = trace.SpanContext(int(TRACE, 16), 7, is_remote=False, trace_flags=trace.TraceFlags(1))
    with Serving(application(receiver)) as server, trace.use_span(trace.NonRecordingSpan(context)):
        with Client(host=server.url, tracing=True, traces_exporter_port=receiver.port) as client:
            client.post("/async", Text(), return_type=Text)
        spans = receiver.wait_for(lambda spans: {"client", "server"} <= {span.kind for span in spans})
    assert {TRACE} == {span.trace for span in spans}


@pytest.mark.parametrize("packed", [False, True])
async def test_each_call_of_a_websocket_has_a_trace_of_its_own_else_that_of_the_handshake(
    receiver: Receiver, packed: bool
) -> None:
    own = "00-11111111111111111111111111111111-2222222222222222-01"
    encode = msgspec.msgpack.encode if packed else lambda message: orjson.dumps(message).decode()
    decode: Callable[[Any], Any] = msgspec.msgpack.decode if packed else orjson.loads
    async with serving(application(receiver), lifespan="on") as port:
        url = f"ws://127.0.0.1:{port}/-/ws"
        async with websockets.connect(url, additional_headers={"traceparent": PARENT}) as socket:
            malformed = {"traceparent": f"{own}\r\nx-own: 1"}
            for number, given in enumerate([{}, {"traceparent": own, "tracestate": "a=1"}, malformed]):
                await socket.send(encode({"id": number, "endpoint": "/async", "data": [{"text": "hi"}], **given}))
                while decode(await socket.recv())["event"] != "end":
                    pass
        spans = receiver.wait_for(lambda spans: 3 == sum(span.name == "websocket /async" for span in spans))
    parents = sorted((span.trace, span.parent) for span in spans if span.name == "websocket /async")
    handshake = (TRACE, "b7ad6b7169203331")
    assert [handshake, handshake, ("1" * 32, "2" * 16)] == parents


async def test_an_error_over_grpc_is_recorded_on_the_span_of_the_request(receiver: Receiver) -> None:
    async with address(receiver, "grpc") as host, Client(host=host, asyncio=True) as client:
        async for _ in client.post("/fail", Text(text="swordfish"), return_type=Text, continue_on_error=True):
            pass
        spans = receiver.wait_for(lambda spans: "server" in {span.kind for span in spans})
    (request,) = [span for span in spans if span.kind == "server"]
    assert ("ValueError", True) == (request.attributes["error.type"], request.failed)
    assert "swordfish" not in repr(spans)
