"""Every line that is logged while a request runs names it, in each process, and as JSON it is one object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.doubles.rig import ROOT, Served

pytestmark = pytest.mark.processes

APP = """
import logging.config

from jina_asgi import Deployment, JinaASGI

logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "jina_asgi.observability.logs.JsonFormatter"}},
    "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["lines"]},
})
pooled = JinaASGI(Deployment("tests.doubles.logging_executors.Talks", name="lm", replicas=1), wait_ready=True)
worker = JinaASGI(Deployment("tests.doubles.logging_executors.Talks", name="lm"), wait_ready=True)
"""


class Running(NamedTuple):
    server: Served
    http: httpx.Client
    process: str

    def ask(self, endpoint: str, request_id: str, *, trace: str = "") -> httpx.Response:
        headers = {"traceparent": trace} if trace else {}
        body = {"data": [{"text": "x"}], "header": {"request_id": request_id}}
        return self.http.post(endpoint, json=body, headers=headers)

    def line(
        self, message: str, logger: str = "tests.doubles.logging_executors", *, request_id: str = ""
    ) -> dict[str, Any]:
        """The first line of JSON with this message, of this request if one is given; it is waited for."""
        head = f'"logger": {json.dumps(logger)}, "message": {json.dumps(message)}'
        of_request = f'"request_id": {json.dumps(request_id)}.*' if request_id else ""
        pattern = rf"^\{{.*{re.escape(head)}.*{of_request}\}}$"
        found: dict[str, Any] = json.loads(self.server.logged(pattern)[0])
        return found


@pytest.fixture(scope="module", params=["worker", "pooled"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("app")
    (folder / "json_app.py").write_text(APP)
    env = {"PYTHONPATH": f"{folder}:{ROOT}"}
    with (
        Served("gunicorn-uvicorn", f"json_app:{request.param}", "--workers", "1", env=env) as server,
        server.client() as http,
    ):
        yield Running(server, http, "replica" if request.param == "pooled" else "worker")


def test_a_line_of_a_request_has_its_id_and_says_where_it_runs(running: Running) -> None:
    for endpoint in ("/sync", "/async"):
        assert 200 == running.ask(endpoint, f"id-{endpoint[1:]}").status_code
    where = {"process": running.process, "deployment": "lm"}
    if running.process == "replica":
        where["replica"] = 0  # type: ignore[assignment]  # a number
    for message, request_id in [("runs sync", "id-sync"), ("begins async", "id-async"), ("ends async", "id-async")]:
        line = running.line(message, request_id=request_id)
        assert {"level": "WARNING", "request_id": request_id, **where}.items() <= line.items()
    as_executor = running.line("runs sync as an Executor", "jina_asgi.executor.Talks", request_id="id-sync")
    assert "id-sync" == as_executor["request_id"]


def test_a_line_of_no_request_has_no_id(running: Running) -> None:
    loads = running.line("loads")
    assert running.process == loads["process"]
    assert "request_id" not in loads


@pytest.mark.parametrize(
    ("endpoint", "message"), [("/batched", "runs a batch of 3"), ("/batched_async", "awaits a batch of 3")]
)
def test_a_line_of_a_batch_has_the_ids_of_all_its_requests(running: Running, endpoint: str, message: str) -> None:
    ids = [f"{endpoint[1:]}-{number}" for number in range(3)]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda one: running.ask(endpoint, one), ids))
    assert [200] * 3 == [answer.status_code for answer in answers]
    assert ids == sorted(running.line(message)["request_id"].split(","))


@pytest.mark.parametrize(("endpoint", "message"), [("/count", "counts"), ("/count_async", "counts async")])
def test_each_step_of_a_generator_has_the_id(running: Running, endpoint: str, message: str) -> None:
    body = {"data": {"text": "x"}, "header": {"request_id": f"steps-{endpoint[1:]}"}}
    assert running.http.post(endpoint, json=body).text.count("event: update") == 3
    for number in range(3):
        assert f"steps-{endpoint[1:]}" == running.line(f"{message} {number}")["request_id"]


def test_the_line_of_an_error_has_the_id_in_the_web_worker_and_the_type_of_the_error(running: Running) -> None:
    failed = running.ask("/fail", "id-fail")
    assert 500 == failed.status_code
    assert "id-fail" == running.line("will fail")["request_id"]
    identity = failed.json()["error"]["id"]
    line = json.loads(running.server.logged(rf'^\{{.*"message": "error {identity}: .*\}}$')[0])
    assert ("worker", "id-fail", "ExecutorError") == (line["process"], line["request_id"], line["error"])
    assert "ValueError: of no use" in line["traceback"]
    assert line["logger"] == "jina_asgi"


def test_the_callers_trace_is_on_the_line(running: Running) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    assert 200 == running.ask("/sync", "id-trace", trace=f"00-{trace}-{span}-01").status_code
    head = '"request_id": "id-trace"'
    line = json.loads(running.server.logged(rf"^\{{.*runs sync.*{head}.*\}}$")[0])
    assert (trace, span) == (line["trace_id"], line["span_id"])


def test_what_a_replica_prints_is_a_line_of_its_own_and_cannot_pass_for_a_logged_one(running: Running) -> None:
    if running.process == "worker":
        pytest.skip("a web worker's own output is the server's")
    assert 200 == running.ask("/print", "id-print").status_code
    line = running.line("printed, not logged", "print")
    assert ("replica", "lm", 0) == (line["process"], line["deployment"], line["replica"])
    assert '{"message": "forged"}' == running.line('{"message": "forged"}', "print")["message"]
