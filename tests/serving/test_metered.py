"""What is counted of requests: each once, under its endpoint, protocol and outcome, whatever becomes of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import grpc
import httpx
import pytest

from jina_asgi import Client, Deployment, GRPCSidecar, JinaASGI
from jina_asgi.documents.codec import codec
from jina_asgi.processes import instance as server_instance
from jina_asgi.protocols.protobuf import requests as wire
from jina_asgi.testing import client
from jina_asgi.testing.transport import websocket
from tests.doubles.metered import Model, Text, of, samples
from tests.doubles.rig import ROOT

REQUESTS, IN_FLIGHT = "jina_asgi_requests_total", "jina_asgi_requests_in_flight"
BODY = {"data": [{"text": "x"}]}


async def page(http: httpx.AsyncClient, **headers: str) -> dict[tuple[str, ...], float]:
    answer = await http.get("/-/metrics", headers=headers)
    assert answer.status_code == 200
    return samples(answer.text)


async def counted(http: httpx.AsyncClient, name: str, protocol: str = "http") -> dict[str, float]:
    """What was counted of a Deployment, as "/endpoint outcome"; nothing is in flight."""
    found = await page(http)
    assert {} == of(found, IN_FLIGHT, f"deployment={name}")
    counts = of(found, REQUESTS, f"deployment={name}", f"protocol={protocol}")
    return {" ".join(label.partition("=")[2] for label in labels): value for labels, value in counts.items()}


def made(name: str, **options: Any) -> JinaASGI:
    return JinaASGI(Deployment(Model, name=name), metrics=True, wait_ready=True, **options)


async def test_each_request_over_http_counts_once_under_its_outcome() -> None:
    async with client(made("by-http")) as http:
        for path in ("/echo", "/echo", "/bad", "/full", "/nowhere", "/stream"):
            await http.post(path, json=BODY)
        await http.post("/echo", content=b"{", headers={"content-type": "application/json"})
        await http.post("/echo", json=BODY, headers={"x-request-timeout": "0"})
        await http.put("/echo", json=BODY)
        await http.post("/post", json={**BODY, "exec_endpoint": "/echo"})
        await http.post("/post", json={**BODY, "exec_endpoint": "/nowhere"})
        await http.get("/stream", params={"text": "bad"})
        assert {
            "/echo ok": 3,
            "/bad ExecutorError": 1,
            "/full Overloaded": 1,
            "other UnknownEndpoint": 2,
            "/stream ok": 1,
            "/echo InvalidRequest": 2,
            "/echo DeadlineExceeded": 1,
            "/stream ExecutorError": 1,
        } == await counted(http, "by-http")


async def test_a_client_that_leaves_counts_as_cancelled() -> None:
    asgi = made("left")
    async with client(asgi) as http:
        calling = asyncio.ensure_future(http.post("/wait", json=BODY))
        while not of(await page(http), IN_FLIGHT, "deployment=left", "endpoint=/wait"):
            await asyncio.sleep(0.005)
        calling.cancel()
        await asyncio.wait([calling])
        async with http.stream("GET", "/stream", params={"text": "wait"}) as stream:
            await anext(stream.aiter_lines())
        while (found := await page(http)) and of(found, IN_FLIGHT, "deployment=left"):
            await asyncio.sleep(0.005)
        assert {"/wait cancelled": 1, "/stream cancelled": 1} == await counted(http, "left")


async def test_calls_on_a_websocket_are_counted_by_themselves() -> None:
    asgi = made("by-socket")
    async with client(asgi) as http, websocket(asgi) as socket:
        for number, endpoint in enumerate(("/echo", "/bad", "/stream", "/nowhere", "/wait")):
            await socket.send({"id": number, "endpoint": endpoint, **BODY})
        await socket.send({"id": 4, "event": "cancel"})
        ended = set[int]()
        while len(ended) < 5:
            event = await socket.receive()
            if event["event"] != "data":
                ended.add(event["id"])
        expected = {"/echo ok": 1, "/bad ExecutorError": 1, "/stream ok": 1, "/wait cancelled": 1}
        found = await counted(http, "by-socket", "websocket")
        assert {**expected, "other UnknownEndpoint": 1} == found


async def test_calls_over_grpc_are_counted_by_themselves() -> None:
    source = Deployment(Model, name="by-grpc")
    docs = codec(source.endpoints["/echo"].input).docs([Text(text="x")])

    def asked(endpoint: str) -> bytes:
        return bytes(wire.request(endpoint, docs, {}, request_id="r").SerializeToString())

    async with client(made("by-grpc")) as http, GRPCSidecar(source, metrics=True) as sidecar:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{sidecar.port}") as channel:
            post = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
            for endpoint in ("/echo", "/bad", "/nowhere", "/nowhere-else", "/stream"):
                await post(asked(endpoint))
            await post(b"no message")
            waiting = post(asked("/wait"))
            while not of(await page(http), IN_FLIGHT, "deployment=by-grpc", "endpoint=/wait"):
                await asyncio.sleep(0.005)
            waiting.cancel()
            while of(await page(http), IN_FLIGHT, "deployment=by-grpc"):
                await asyncio.sleep(0.005)
        asking = Client(port=sidecar.port or 0, asyncio=True)
        async for _ in asking.stream_doc("/stream", Text(text="x")):
            pass
        assert {
            "/echo ok": 1,
            "/bad ExecutorError": 1,
            "other ok": 2,  # answered with what was sent, as in Jina
            "/stream InvalidDocs": 1,
            "other InvalidRequest": 1,
            "/wait cancelled": 1,
            "/stream ok": 1,
        } == await counted(http, "by-grpc", "grpc")


async def test_the_time_of_a_request_is_in_the_bucket_above_it() -> None:
    async with client(made("timed")) as http:
        start = time.perf_counter()
        await http.post("/echo", json=BODY)
        took = time.perf_counter() - start
        found = await page(http)
        name, labels = "jina_asgi_request_seconds", ("deployment=timed", "endpoint=/echo", "protocol=http")
        assert [1.0] == [*of(found, f"{name}_count", *labels).values()]
        (total,) = of(found, f"{name}_sum", *labels).values()
        assert 0 < total <= took
        for (bound,), count in of(found, f"{name}_bucket", *labels).items():
            assert (count == 1) == (total <= float(bound.removeprefix("le=")))


async def test_no_text_of_a_client_is_a_label_and_ten_thousand_unknown_names_add_no_series() -> None:
    asgi = made("bounded")
    async with client(asgi) as http, websocket(asgi) as socket:
        await http.post("/nowhere", json=BODY)
        await socket.send({"id": 0, "endpoint": "/nowhere", **BODY})
        await socket.receive()
        before = await page(http)
        for number in range(5000):
            await http.post(f"/nowhere-{number}", json=BODY, headers={"x-tenant": str(number)})
            await socket.send({"id": 1, "endpoint": f"/nowhere-{number}", **BODY})
            await socket.receive()
        after = await page(http)
        assert before.keys() == after.keys()
        assert {"other UnknownEndpoint": 5001} == await counted(http, "bounded")


async def test_the_page_is_behind_auth_and_in_the_format_that_is_accepted() -> None:
    async def auth(headers: Mapping[str, str], endpoint: str) -> Any:
        return headers.get("authorization") or None

    async with client(made("private", auth=auth)) as http:
        assert (await http.get("/-/metrics")).status_code == 401
        http.headers["authorization"] = "me"
        text = await http.get("/-/metrics")
        accepted = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        openmetrics = await http.get("/-/metrics", headers={"accept": accepted})
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")
    assert 'jina_asgi_build_info{python="' in text.text


async def test_a_process_without_a_usable_folder_serves_and_its_page_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_instance, "_bases", lambda: iter(()))
    async with client(made("homeless")) as http:
        assert (await http.post("/echo", json=BODY)).status_code == 200
        assert (await http.get("/-/metrics")).status_code == 503
    assert "this process shows no metrics: there is no folder for sockets" in caplog.text


OFF = """
import asyncio, sys
from jina_asgi import JinaASGI
from jina_asgi.testing import client
from tests.doubles.apps import Model
async def main():
    async with client(JinaASGI(Model, wait_ready=True)) as http:
        assert (await http.post("/echo", json={"data": [{}]})).status_code == 200
        assert (await http.get("/-/metrics")).status_code == 404
asyncio.run(main())
ours = [f"jina_asgi.observability.{name}" for name in ("figure", "measures", "metrics", "prometheus", "writer")]
print([name for name in sys.modules if name.startswith(("prometheus_client", *ours))])
"""


@pytest.mark.processes
def test_nothing_is_imported_without_metrics() -> None:
    looked = subprocess.run([sys.executable, "-c", OFF], cwd=ROOT, capture_output=True, text=True, check=True)
    assert looked.stdout == "[]\n"
