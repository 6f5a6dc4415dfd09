"""With `access_log` each call has a line, over every protocol; what is in its documents is in no line of any process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from docarray import DocList

from jina_asgi import Client
from jina_asgi.observability.access_log import _who
from tests.doubles.logging_executors import Note, Other
from tests.doubles.rig import LOCAL, ROOT, Served, _free_port

APP = """
import logging
from jina_asgi import Deployment, JinaASGI

logging.getLogger().setLevel(logging.DEBUG)

async def auth(headers, endpoint):
    return {"name": headers.get("x-user"), "secret": "s3cret"} if "x-user" in headers else None

def made(**options):
    of_log = dict(log_config="json", access_log=True)
    source = Deployment("tests.doubles.logging_executors.Talks", name="lm", **of_log, **options)
    return JinaASGI(source, wait_ready=True, auth=auth, grpc="127.0.0.1:GRPC")

pooled, worker = made(replicas=1), made()
"""
MARKER = "m4rk3r"


class Running(NamedTuple):
    server: Served
    grpc: int
    is_pooled: bool

    def access(self, request_id: str) -> dict[str, Any]:
        """The access line of a request; it is waited for."""
        line = rf'^\{{.*"logger": "jina_asgi.access".*"request_id": "{re.escape(request_id)}".*\}}$'
        found: dict[str, Any] = json.loads(self.server.logged(line)[0])
        return found

    def post(self, endpoint: str, request_id: str, text: Any = "x") -> httpx.Response:
        body = {"data": [{"text": text}], "header": {"request_id": request_id}}
        with self.server.client() as http:
            return http.post(endpoint, json=body, headers={"x-user": "ann"})


@pytest.fixture(scope="module", params=["worker", "pooled"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("app")
    port = _free_port()
    (folder / "access_app.py").write_text(APP.replace("GRPC", str(port)))
    env = {"PYTHONPATH": f"{folder}:{ROOT}", "JINA_LOG_LEVEL": "DEBUG"}
    with Served("gunicorn-uvicorn", f"access_app:{request.param}", "--workers", "1", env=env) as server:
        yield Running(server, port, request.param == "pooled")


pytestmark = pytest.mark.processes


def test_a_call_has_a_line_with_its_outcome_size_times_and_caller(running: Running) -> None:
    assert 200 == running.post("/sync", "right").status_code
    line = running.access("right")
    assert {
        "level": "INFO",
        "endpoint": "/sync",
        "protocol": "http",
        "outcome": "ok",
        "who": "ann",
        "deployment": "lm",
    }.items() <= line.items()
    assert line["bytes"] > 40
    if not running.is_pooled:
        assert abs(line["wait"] + line["run"] - line["seconds"]) < 1e-5


@pytest.mark.parametrize(
    ("endpoint", "text", "outcome"), [("/fail", "x", "ExecutorError"), ("/sync", ["x"], "InvalidDocs")]
)
def test_the_outcome_of_a_failed_call_is_the_public_error(
    running: Running, endpoint: str, text: Any, outcome: str
) -> None:
    running.post(endpoint, f"fails{endpoint[1:]}", text)
    words = f'"endpoint": "{endpoint}".*"outcome": "{outcome}".*"who": "ann"'
    running.server.logged(rf'^\{{.*"jina_asgi.access".*{words}.*\}}$')


def test_a_call_that_is_refused_has_a_line_too(running: Running) -> None:
    with running.server.client() as http:
        assert 401 == http.post("/sync", json={"data": [{"text": "x"}]}).status_code
    running.server.logged(r'^\{.*jina_asgi.access.*"outcome": "Unauthenticated".*\}$')


def test_a_batched_call_says_with_how_many_it_ran(running: Running) -> None:
    if running.is_pooled:
        pytest.skip("batches of a pool form in another process")
    ids = [f"batched-{number}" for number in range(3)]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda one: running.post("/batched", one), ids))
    assert [200] * 3 == [answer.status_code for answer in answers]
    assert [3] * 3 == [running.access(one)["batch"] for one in ids]


def test_no_line_of_any_process_has_what_is_in_a_document(running: Running) -> None:
    urls = {
        "http": f"http://{LOCAL}:{running.server.port}",
        "websocket": f"ws://{LOCAL}:{running.server.port}",
        "grpc": f"grpc://{LOCAL}:{running.grpc}",
    }
    right, wrong = DocList[Note]([Note(text=MARKER)]), DocList[Other]([Other(text=[MARKER])])
    for protocol, url in urls.items():
        with Client(url, asyncio=False, headers={"x-user": f"user-{protocol}"}) as client:
            for endpoint in ("/sync", "/batched_async", "/fail", "/misfit", "/text"):
                with suppress(Exception):
                    client.post(endpoint, right)
            with suppress(Exception):
                client.post("/sync", wrong)
            with suppress(Exception):
                assert 3 == len(list(client.stream_doc("/count", right[0])))
        for endpoint in ("/sync", "/fail", "/misfit", "/text", "/count"):
            words = f'"endpoint": "{endpoint}", "protocol": "{protocol}"'
            running.server.logged(rf'^\{{.*"jina_asgi.access".*{words}.*"who": "user-{protocol}"')
    assert 422 == running.post("/sync", "last", [MARKER]).status_code
    running.server.logged(r'^\{.*"outcome": "InvalidDocs".*"who": "ann"\}$')
    assert MARKER not in running.server.log
    assert "s3cret" not in running.server.log


@pytest.mark.parametrize(
    ("identity", "who"),
    [
        (None, ""),
        ("ann", "ann"),
        (7, "7"),
        ({"sub": "ann", "password": "x"}, "ann"),
        ({"password": "x"}, "dict"),
        ("a\nb c=d", "a_b_c_d"),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_caller_is_named_in_a_bounded_word(identity: Any, who: str) -> None:
    assert who == _who(identity)
