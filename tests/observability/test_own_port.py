"""Jina's options: the metrics at a port of their own, from Python, from YAML and on the command line."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from jina_asgi import Deployment, Flow, JinaASGI
from jina_asgi.testing import client
from tests.doubles.metered import Model, Text, of, samples
from tests.doubles.rig import Served
from tests.doubles.uvicorn_server import free_port

BODY = {"data": [{"text": "x"}]}


def page(port: int, *, within: float = 10.0) -> str:
    """The page at a port, once a process shows it."""
    deadline = time.monotonic() + within
    while True:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=10.0)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"nothing answers at port {port}"
            time.sleep(0.05)
        else:
            assert answer.status_code == 200
            return answer.text


def test_a_deployment_of_jinas_shows_its_metrics_at_their_port() -> None:
    port = free_port()
    with Deployment(uses=Model, name="own", monitoring=True, port_monitoring=port, quiet=True) as served:
        served.post("/echo", Text(text="x"))
        assert {(): 1} == of(samples(page(port)), "jina_successful_requests_total", "runtime_name=own")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/")


def test_the_yaml_of_a_flow_does_too(tmp_path: Path) -> None:
    port = free_port()
    yaml = f"jtype: Flow\nwith: {{name: by-yaml, protocol: http, monitoring: true, port_monitoring: {port}, quiet: true}}\n"
    (tmp_path / "flow.yml").write_text(f"{yaml}executors: [{{uses: tests.doubles.metered.Model, name: one}}]\n")
    with Flow.load_config(tmp_path / "flow.yml") as served:
        served.post("/echo", Text(text="x"))
        found = samples(page(port))
    assert {(): 1} == of(found, "jina_successful_requests_total", "runtime_name=by-yaml")
    of_node = ("executor=one", "executor_endpoint=/echo", "runtime_name=one")
    assert {(): 1} == of(found, "jina_process_request_seconds_count", *of_node)


async def test_the_option_of_a_mounted_deployment_counts() -> None:
    async with client(JinaASGI(Deployment(Model, name="by-source", metrics=True), wait_ready=True)) as http:
        await http.post("/echo", json=BODY)
        found = samples((await http.get("/-/metrics")).text)
    labels = ("deployment=by-source", "endpoint=/echo", "outcome=ok")
    assert {("protocol=http",): 1} == of(found, "jina_asgi_requests_total", *labels)


async def test_a_port_in_use_is_an_error_in_the_log_and_the_server_answers(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with Deployment(uses=Model, name="holder", protocol="http", port=port, quiet=True):
        asgi = JinaASGI(Deployment(Model, name="second"), port_monitoring=port, wait_ready=True)
        async with client(asgi) as http:
            assert (await http.post("/echo", json=BODY)).status_code == 200
    assert f"the metrics cannot be shown at port {port}" in caplog.text


@pytest.mark.processes
def test_another_worker_takes_the_port_when_the_one_that_has_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("PORT_MONITORING", str(port))
    with Served("gunicorn-uvicorn", "tests.doubles.metered:own_port", "--workers", "2") as server:
        with server.client() as http:
            pids = {http.post("/echo", json=BODY).json()["data"][0]["pid"]}
            while {} == of(samples(page(port)), "jina_successful_requests_total", "runtime_name=served"):
                time.sleep(0.05)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert of(samples(page(port)), "jina_successful_requests_total", "runtime_name=served")
