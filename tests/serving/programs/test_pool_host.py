"""One pool behind all workers of an application: one host, its replicas, one queue, whoever dies or is replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from jina_asgi import Deployment
from jina_asgi.processes import instance
from tests.doubles.pool_watch import APP, HOST, SETTLED, Hammer, Pooled, children, command, fresh, place_key, processes
from tests.doubles.rig import ROOT, Journal, Served

pytestmark = pytest.mark.processes


@pytest.fixture
def pooled(journal: Journal) -> Iterator[Pooled]:
    with Served("gunicorn-uvicorn", APP, "--workers", "4", env=journal.env) as server:
        pool = Pooled(server)
        with fresh(server) as http:
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200 and len(pool.replicas) == 2)
        yield pool
        server.signal(signal.SIGTERM)
        assert server.ended(within=20.0) == 0
        pool.until(lambda: not pool.hosts())


def test_all_workers_share_one_host_and_its_replicas(pooled: Pooled) -> None:
    with fresh(pooled.server) as http, ThreadPoolExecutor(64) as threads:
        docs = list(threads.map(lambda i: pooled.run(str(i), 0.1), range(256)))
        workers = [http.get("/worker").json() for _ in range(40)]

    assert {doc["pid"] for doc in docs} == set(pooled.replicas)
    assert len(pooled.hosts()) == 1
    assert max(int(str(doc["batch"])) for doc in docs) > 16  # of requests that came to different workers
    assert len({worker["pid"] for worker in workers}) > 1
    assert not any(worker["has"] for worker in workers)


def test_workers_come_and_go_without_the_models_noticing(pooled: Pooled) -> None:
    before = pooled.replicas
    with Hammer(pooled) as hammer:
        hammer.more()
        pooled.server.signal(signal.SIGHUP)
        hammer.more(100)
        assert not hammer.failed
        for worker in pooled.workers[:2]:
            os.kill(worker, signal.SIGKILL)
        hammer.more(100)

    assert all("ReadError" in failure or "RemoteProtocol" in failure for failure in hammer.failed)  # of the killed
    assert pooled.replicas == before


def test_a_replica_that_is_killed_costs_no_caller_an_answer(pooled: Pooled) -> None:
    with Hammer(pooled) as hammer:
        for _ in range(2):
            hammer.more()
            os.kill(pooled.replicas[0], signal.SIGKILL)
            pooled.until(lambda: len(pooled.replicas) == 2)
        hammer.more()

    assert not hammer.failed


def test_a_host_that_is_killed_is_replaced_and_takes_its_replicas_with_it(pooled: Pooled) -> None:
    host, before = pooled.host, set(pooled.replicas)
    with Hammer(pooled) as hammer:
        hammer.more()
        os.kill(host, signal.SIGKILL)
        pooled.until(lambda: len(pooled.replicas) == 2 and not before & set(pooled.replicas))
        hammer.more()

    assert not hammer.failed
    assert pooled.host != host
    assert not [pid for pid in before if instance.alive(pid, instance.started(pid))]


def test_a_host_that_hangs_is_replaced(journal: Journal) -> None:
    env = {**journal.env, "POOLED_HEARTBEAT": "1", "POOLED_REPLICAS": "1"}
    with Served("gunicorn-uvicorn", APP, "--workers", "2", env=env) as server:
        pool = Pooled(server)
        with fresh(server) as http:
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200)
            host = pool.host
            os.kill(host, signal.SIGSTOP)
            pool.until(lambda: pool.hosts() not in ([], [host]))
            assert pool.run()["pid"] in pool.replicas
            assert host not in pool.hosts()


def test_a_stream_crosses_both_processes_and_is_closed_where_its_client_left(pooled: Pooled, journal: Journal) -> None:
    with fresh(pooled.server) as http:
        with http.stream("POST", "/lm/stream", json={"data": {"name": "s", "pause": 0.01}}) as events:
            lines = events.iter_lines()
            assert [line for line, _ in zip((line for line in lines if "data" in line), range(3), strict=False)]
        journal.until("closed s")


def test_new_code_is_loaded_beside_the_old_when_workers_are_asked_to_reload(tmp_path: Path, journal: Journal) -> None:
    (tmp_path / "fresh_model.py").write_text((ROOT / "tests/doubles/pooled_model.py").read_text())
    app = (ROOT / "tests/doubles/pooled.py").read_text().replace("tests.doubles.pooled_model", "fresh_model")
    (tmp_path / "fresh_app.py").write_text(app)
    env = {**journal.env, "PYTHONPATH": f"{tmp_path}:{ROOT}", "POOLED_REPLICAS": "1"}
    with Served("gunicorn-uvicorn", "fresh_app:app", "--workers", "2", env=env) as server:
        pool = Pooled(server)
        with fresh(server) as http:
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200)
            old = pool.run()["pid"]
            with (tmp_path / "fresh_model.py").open("a") as model:
                model.write("\n# new\n")
            with Hammer(pool, 2) as hammer:
                server.signal(signal.SIGHUP)
                pool.until(lambda: len(pool.replicas) == 1 and old not in pool.replicas)
                hammer.more(20)
            assert not hammer.failed
            assert pool.run()["pid"] != old


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_server_has_ended(number: int, journal: Journal) -> None:
    # However long gunicorn waits for a worker's sign of life, a worker sees within seconds that gunicorn has gone.
    with Served("gunicorn-uvicorn", APP, "--workers", "2", "--timeout", "120", env=journal.env) as server:
        pool = Pooled(server)
        with fresh(server) as http:
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200 and len(pool.replicas) == 2)
        replicas, folder = pool.replicas, instance.folder(place_key(server.process.pid))
        key = place_key(server.process.pid)
        os.kill(server.process.pid, number)
        server.process.wait(20.0)
        pool.until(lambda: not [pid for pid in processes(HOST) if key in command(pid)])
        pool.until(lambda: not [pid for pid in replicas if instance.alive(pid, instance.started(pid))])
        pool.until(lambda: not folder.exists())


def test_a_host_ends_with_the_last_application_of_a_process_that_goes_on() -> None:
    def hosts() -> list[int]:
        return [pid for pid in processes(HOST) if place_key(os.getpid()) in command(pid)]

    with Deployment("tests.doubles.pooled_model.Model", replicas=1, protocol="http"):
        [host] = hosts()
        replicas = children(host)
        assert len(replicas) == 1
    deadline = time.monotonic() + SETTLED
    while hosts() or [pid for pid in replicas if instance.alive(pid, instance.started(pid))]:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # processes come and go: there is no event to wait on


def test_a_host_outlives_the_only_worker_of_a_server_that_replaces_it(journal: Journal) -> None:
    env = {**journal.env, "POOLED_REPLICAS": "1"}
    with Served("gunicorn-uvicorn", "tests.doubles.pooled_after:app", "--workers", "1", env=env) as server:
        pool = Pooled(server)
        with fresh(server) as http:
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200)
            before, [worker] = (pool.host, pool.replicas), pool.workers
            os.kill(worker, signal.SIGKILL)
            pool.until(lambda: pool.workers not in ([], [worker]))
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200)
            assert (pool.host, pool.replicas) == before


RACER = """
import sys
from jina_asgi.processes import host_socket as election, instance as place
sys.stdin.readline()
connection = election.connect(place.instance())
print("connected", flush=True)
sys.stdin.readline()
"""


def test_of_many_who_look_for_a_host_one_starts_it() -> None:
    name = f"race-{os.getpid()}"
    env = {**os.environ, "JINA_ASGI_POOL": name, "PYTHONPATH": str(ROOT)}
    command_line = [sys.executable, "-c", RACER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command_line, env=env, **pipes) for _ in range(16)]  # type: ignore[call-overload]
    try:
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert {racer.stdout.readline() for racer in racers} == {"connected\n"}
        [_] = [pid for pid in processes(HOST) if f"pool-{name}" in command(pid)]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
        deadline = time.monotonic() + SETTLED
        while [pid for pid in processes(HOST) if f"pool-{name}" in command(pid)]:
            assert time.monotonic() < deadline
            time.sleep(0.1)  # a process that is not our child: there is no event to wait on
        instance.remove(f"pool-{name}")


@pytest.mark.parametrize("load", ["0", "3"], ids=["while a worker is replaced", "while it loads"])
def test_a_host_that_hangs_where_a_worker_waits_for_it_is_given_up_and_another_elected(
    load: str, journal: Journal
) -> None:
    env = {**journal.env, "POOLED_HEARTBEAT": "1", "POOLED_REPLICAS": "1", "POOLED_LOAD": load}
    with Served("gunicorn-uvicorn", APP, "--workers", "1", env=env) as server:
        pool = Pooled(server)
        with fresh(server) as http:
            pool.until(lambda: pool.replicas != [] if load != "0" else http.get("/lm/-/ready").status_code == 200)
            hung, [worker] = pool.host, pool.workers
            os.kill(hung, signal.SIGSTOP)
            if load == "0":
                os.kill(worker, signal.SIGKILL)
            pool.until(lambda: pool.hosts() not in ([], [hung]))
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200)
            assert pool.run()["pid"] in pool.replicas
            assert hung not in pool.hosts()


def test_a_host_that_gives_no_answer_is_named_and_the_others_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = Path(tempfile.mkdtemp(dir="/tmp"))  # as short as a socket's path must be
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    folders = {name: instance.folder(f"pool-{name}") for name in ("silent", "sound")}
    instance.record_pool_host(folders["silent"], os.getpid())
    said = {"pid": 4711, "instance": "pool-sound", "deployments": {}}
    with ExitStack() as stack:
        listening = {name: stack.enter_context(socket.socket(socket.AF_UNIX)) for name in folders}
        for name, one in listening.items():
            one.bind(str(folders[name] / "socket"))
            one.listen()

        def answer() -> None:
            connection, _ = listening["sound"].accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(json.dumps(said).encode())

        answering = threading.Thread(target=answer)
        answering.start()
        command = [sys.executable, "-m", "jina_asgi", "pool"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True)
        answering.join()
    shutil.rmtree(base)
    assert "pool host 4711 of pool-sound" in printed.stdout
    assert f"pool host {os.getpid()} at {folders['silent']} does not answer within 5 s" in printed.stderr
