"""gunicorn with our configuration: several workers, reloads, the overrides that its users expect, the example."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import pytest

from tests.doubles.rig import LOCAL, ROOT, Journal, Served

pytestmark = pytest.mark.processes

APP = "tests.doubles.apps:both"
BODY = {"data": [{"name": "x"}]}


class Connections:
    """A connection a request, so that each goes to whichever worker takes it; threads may share this.

    They must not share a client: its pool may close what another thread waits on (encode/httpcore#1110).
    """

    def __init__(self, server: Served) -> None:
        self._server = server

    def post(self, path: str, json: object) -> httpx.Response:
        with self._server.client() as http:
            return http.post(path, json=json)


def pid_of(http: Connections) -> int:
    pid: int = http.post("/echo", json=BODY).json()["data"][0]["pid"]
    return pid


def test_several_workers_serve(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, "--workers", "2", env=journal.env) as server:
        http = Connections(server)
        with ThreadPoolExecutor(8) as threads:
            seen: set[int] = set()
            while len(seen) < 2:
                seen |= set(threads.map(lambda _: pid_of(http), range(16)))
        server.signal(signal.SIGTERM)
        assert server.ended(within=10.0) == 0
        assert [] == server.members()


def test_a_reload_loses_no_request(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, "--workers", "2", env=journal.env) as server:
        enough, lost = Event(), list[str]()
        asked = {"/echo": 0, "/lm/echo": 0, "/quick": 0, "/lm/quick": 0}

        def ask(http: Connections, path: str) -> None:
            while not enough.is_set():
                try:
                    answer = http.post(path, json=BODY)
                    if answer.status_code != 200:
                        lost.append(answer.text)
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                asked[path] += 1

        http = Connections(server)
        with ThreadPoolExecutor(4) as threads:
            before = pid_of(http)
            asking = [threads.submit(ask, http, path) for path in asked]
            for _ in range(2):
                server.signal(signal.SIGHUP)
                server.logged(rf"Worker exiting \(pid: {before}\)")
                while (now := pid_of(http)) == before:
                    pass
                before = now
            while min(asked.values()) < 10:
                pid_of(http)
            enough.set()
            for one in asking:
                one.result()
        assert [] == lost
        assert "Traceback" not in server.log


def test_a_worker_that_has_served_its_share_is_replaced_without_a_loss(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, "--workers", "2", "--max-requests", "20", env=journal.env) as server:
        http = Connections(server)
        with ThreadPoolExecutor(4) as threads:
            seen: set[int] = set()
            while len(seen) < 4:
                seen |= set(threads.map(lambda _: pid_of(http), range(30)))
        assert "Traceback" not in server.log


def test_two_servers_of_one_user_do_not_collide(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, env=journal.env) as one, Served("gunicorn-uvicorn", APP) as two:
        for server in (one, two):
            with server.client() as http:
                assert 200 == http.get("/-/live").status_code
            assert "ontrol" not in server.log
            server.signal(signal.SIGTERM)
        assert [0, 0] == [server.ended(within=10.0) for server in (one, two)]


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], "", "Using worker: jina_asgi.gunicorn.Worker"),
        ([], "-k asgi", "Using worker: asgi"),
        (["-k", "uvicorn_worker.UvicornWorker"], "-k asgi", "Using worker: uvicorn_worker.UvicornWorker"),
    ],
)
def test_the_environment_overrides_the_file_and_the_command_line_both(
    arguments: list[str], environment: str, said: str
) -> None:
    env = {"GUNICORN_CMD_ARGS": environment, "PYTHONPATH": str(ROOT)}
    with Served("gunicorn-uvicorn", APP, *arguments, env=env) as server:
        server.logged(said, within=5.0)


def test_gunicorn_typed_in_the_examples_folder_serves_by_the_asgi_worker() -> None:
    typed = ["gunicorn", "app:asgi", "-b", f"{LOCAL}:0"]
    with Served("gunicorn-uvicorn", "app:asgi", cwd=ROOT / "examples", command=typed) as server:
        with server.client() as http:
            assert 200 == http.get("/-/live").status_code
        assert "Using worker: jina_asgi.gunicorn.Worker" in server.log


def test_what_is_missing_is_named_with_the_command_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['uvicorn_worker'] = None\n"
        "try:\n    import jina_asgi.gunicorn\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "jina_asgi.gunicorn needs uvicorn_worker; install it with: pip install 'jina-asgi[gunicorn]'\n" == said


def test_the_package_alone_imports_no_server() -> None:
    code = "import sys, jina_asgi; print(sorted({'gunicorn', 'uvicorn', 'uvicorn_worker'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "[]\n" == said


def test_workers_end_when_gunicorn_itself_is_killed(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, "--workers", "2", env=journal.env) as server:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        deadline = time.monotonic() + 20
        while server.members() and time.monotonic() < deadline:
            Event().wait(0.05)
        assert not server.members()
