"""Tracing in an application that has set up OpenTelemetry itself, and in one that has not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.doubles.otlp_receiver import Receiver, named
from tests.doubles.rig import ROOT

pytestmark = pytest.mark.processes

HOST = """
import asyncio
import httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from jina_asgi import Deployment, mount
from tests.doubles.traced_executors import Traced
from tests.doubles.uvicorn_server import serving

provider = TracerProvider(resource=Resource.create({{"service.name": "host"}}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:{port}", insecure=True)))
trace.set_tracer_provider(provider)
app = FastAPI()
mount(app, "/lm", Deployment(uses=Traced, tracing=True))
FastAPIInstrumentor.instrument_app(app)

async def main():
    async with serving(app, lifespan="on") as port, httpx.AsyncClient() as http:
        for path, data in (("/global", [{{}}]), ("/stream", {{}}), ("/batch", [{{}}])):
            answer = await http.post(f"http://127.0.0.1:{{port}}/lm{{path}}", json={{"data": data}})
            assert answer.status_code == 200, answer.text

asyncio.run(main())
assert trace.get_tracer_provider() is provider
provider.shutdown()
"""

OFF = """
import asyncio
import sys
import httpx
from jina_asgi import Client, Deployment, Flow, JinaASGI
from tests.doubles.flows import Mark
from tests.doubles.uvicorn_server import serving

async def main():
    app = JinaASGI(Flow().add(uses=Mark, name="mark"), grpc="127.0.0.1:0")
    async with serving(app, lifespan="on") as port, httpx.AsyncClient() as http:
        assert (await http.post(f"http://127.0.0.1:{port}/mark", json={"data": [{}]})).status_code in (200, 404)
    async with Deployment(uses=Mark) as deployment:
        Client(host="http://127.0.0.1:1")

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_fastapi_instrumented_its_server_span_is_the_only_one_and_ours_are_below(receiver: Receiver) -> None:
    run(HOST.format(port=receiver.port))
    spans = receiver.wait_for_names("/global", "/stream", "/batch", "in batch", "by the global provider")
    assert {"host"} == {span.service for span in spans}
    servers = {span.id: span for span in spans if span.kind == "server"}
    assert 3 == len(servers)
    for method in ("/global", "/stream"):
        assert named(spans, method).parent in servers
    assert named(spans, "batch").links[0] in servers
    assert named(spans, "by the global provider").parent == named(spans, "/global").id
    streaming = servers[named(spans, "/stream").parent]
    assert 3 == streaming.attributes["jina.documents.streamed"]


def test_without_the_option_opentelemetry_is_never_imported() -> None:
    assert "[]" == run(OFF).strip()
