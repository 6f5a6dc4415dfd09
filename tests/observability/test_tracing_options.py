"""Tracing is turned on in Python, in YAML and on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from jina_asgi import Deployment, Executor, Flow, JinaASGI, requests
from jina_asgi.errors import DefinitionError
from tests.cli.conftest import filled
from tests.cli.conftest import serving as command
from tests.doubles.otlp_receiver import Receiver, named
from tests.doubles.traced_executors import Plain
from tests.doubles.uvicorn_server import bound, serving


async def asked(app: Any) -> None:
    async with serving(app, lifespan="on") as port, httpx.AsyncClient() as http:
        assert (await http.post(f"http://127.0.0.1:{port}/async", json={"data": [{}]})).status_code == 200


async def test_a_flow_of_yaml_gives_its_options_to_its_nodes(receiver: Receiver) -> None:
    flow = Flow.load_config(
        {
            "jtype": "Flow",
            "with": {"name": "written", "tracing": True, "traces_exporter_port": receiver.port},
            "executors": [{"name": "one", "uses": "Plain", "py_modules": "tests.doubles.traced_executors"}],
        }
    )
    await asked(JinaASGI(flow))
    spans = receiver.wait_for_names("POST /async", "node one", "/async")
    assert ("written", "one") == (named(spans, "node one").service, named(spans, "/async").service)


async def test_an_application_gives_its_options_to_the_deployment_that_it_makes(receiver: Receiver) -> None:
    await asked(JinaASGI(Plain, tracing=True, traces_exporter_port=receiver.port))
    spans = receiver.wait_for_names("POST /async", "/async")
    assert named(spans, "POST /async").id == named(spans, "/async").parent


async def test_an_application_alone_traces_its_requests(receiver: Receiver) -> None:
    await asked(JinaASGI(Deployment(uses=Silent), tracing=True, traces_exporter_port=receiver.port))
    assert ["POST /async"] == [span.name for span in receiver.wait_for_names("POST /async")]


class Silent(Executor):
    @requests(on="/async")
    async def answer(self, **kwargs: Any) -> None:
        assert (self.tracer, self.meter) == (None, None)


@pytest.mark.processes
def test_on_the_command_line(receiver: Receiver, tmp_path: Path) -> None:
    with command(
        filled(tmp_path), "flow", "--uses", "flow.yml", "--tracing", "--traces-exporter-port", str(receiver.port)
    ) as served:
        assert 200 == httpx.post(f"{served.url}/shout", json={"data": [{"text": "hi"}]}).status_code
        spans = receiver.wait_for_names("POST /shout", "node parrot", "/shout")
        assert 0 == served.end()[0]
    assert named(spans, "node parrot").id == named(spans, "/shout").parent


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or"),
    ],
)
async def test_an_exporter_that_is_not_known_is_an_error(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(DefinitionError, match=expected):
        async with Deployment(
            uses=Plain, name=value.replace("/", "-"), tracing=True, traces_exporter_port=2
        ) as deployment:
            await deployment.call("/async", [{}])


async def test_no_spans_are_exported_where_the_environment_says_so(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    await asked(JinaASGI(Deployment(uses=Plain, name="none", tracing=True, traces_exporter_port=receiver.port)))
    assert [] == receiver.spans


@pytest.mark.processes
@pytest.mark.parametrize("made", ["Deployment(uses=Mark, tracing=True)", "JinaASGI(Mark, tracing=True)"])
def test_without_opentelemetry_the_option_names_the_extra(made: str) -> None:
    program = f"""
import sys
sys.modules["opentelemetry"] = None
from jina_asgi import Deployment, JinaASGI
from jina_asgi.errors import DefinitionError
from tests.doubles.flows import Mark
Deployment(uses=Mark)
try:
    {made}
except DefinitionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "tracing needs the extra otel: pip install 'jina-asgi[otel]'" in done.stdout


@pytest.mark.processes
def test_the_api_alone_passes_on_a_trace_and_says_that_nothing_is_exported() -> None:
    program = """
import asyncio, logging, sys
sys.modules["opentelemetry.sdk"] = None
logging.basicConfig()
from jina_asgi import Context, Deployment, JinaASGI
from tests.doubles.traced_executors import Traced
from tests.doubles.uvicorn_server import bound, serving

async def main():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(JinaASGI(Traced), lifespan="on") as port:
        host = f"http://127.0.0.1:{port}"
        async with Deployment(name="near", external=True, host=host, tracing=True) as near:
            [doc] = await near.call("/headers", [{}], context=Context(headers={"traceparent": parent}))
            print(doc.text == parent)

if __name__ == "__main__":
    asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert "True" == done.stdout.strip(), done.stderr
    assert "tracing=True exports no spans: pip install 'jina-asgi[otel]'" in done.stderr


@pytest.mark.processes
def test_a_receiver_that_is_silent_holds_up_the_end_of_a_process_for_moments_only() -> None:
    """The exporter alone would try for ten seconds, and again at exit."""
    program = """
import asyncio, sys
from jina_asgi import Deployment
from tests.doubles.traced_executors import Plain, Text

async def main():
    async with Deployment(uses=Plain, tracing=True, traces_exporter_port=int(sys.argv[1])) as deployment:
        await deployment.call("/async", [Text()])
        print("leaving", flush=True)

asyncio.run(main())
"""
    with bound() as silent:
        silent.listen()
        command = [sys.executable, "-c", program, str(silent.getsockname()[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            assert "leaving" == process.stdout.readline().strip()
            try:
                assert 0 == process.wait(8)
            finally:
                process.kill()
