"""Faults that befall a server with a pool: its replicas, its workers, its arbiter, its surroundings, the clock."""

from __future__ import annotations

import datetime
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from jina_asgi.processes import instance
from tests.doubles import read_only
from tests.doubles.pool_watch import APP, HOST, Hammer, Pooled, command, fresh, place_key, processes
from tests.doubles.rig import LOCAL, ROOT, Journal, Served

pytestmark = pytest.mark.processes

DRAIN = 3


@contextmanager
def serving(
    journal: Journal, *options: str, workers: int = 2, loads: bool = True, started_by: str = "gunicorn", **env: str
) -> Iterator[Pooled]:
    """The application `pooled`; when the block ends it is told to end, and nothing of it may be left."""
    words = [*started_by.split(), "-c", "python:jina_asgi.gunicorn", "-b", f"{LOCAL}:0", APP]
    more = ["--workers", str(workers), "--graceful-timeout", str(DRAIN), *options]
    with Served("gunicorn-uvicorn", APP, *more, env={**journal.env, **env}, command=words) as server:
        pool = Pooled(server)
        if loads:
            pool.until(lambda: is_ready(pool) and len(pool.replicas) == int(env.get("POOLED_REPLICAS", "2")))
        yield pool
        if server.process.poll() is None:
            server.signal(signal.SIGTERM)
        assert server.ended(within=10.0) == 0
        pool.until(lambda: not pool.hosts())
        assert "Traceback" not in server.log, server.log


def is_ready(pool: Pooled) -> bool:
    with fresh(pool.server) as http:
        return http.get("/lm/-/ready").status_code == 200


def asked(pool: Pooled, name: str, pause: float) -> httpx.Response:
    """One call of the endpoint that must not run twice."""
    with pool.server.client() as http:
        return http.post("/lm/once", json={"data": [{"name": name, "pause": pause}]})


# -- replicas


def test_while_no_replica_is_up_the_server_is_not_ready_and_calls_wait_for_one(journal: Journal) -> None:
    """RP-02: all are killed at once."""
    with serving(journal) as pool, ThreadPoolExecutor(8) as threads:
        start = time.monotonic()
        for pid in pool.replicas:
            os.kill(pid, signal.SIGKILL)
        calls = [threads.submit(pool.run, f"n{number}") for number in range(8)]
        pool.until(lambda: not is_ready(pool))
        assert time.monotonic() - start < 1.0
        assert [call.result()["name"] for call in calls] == [f"n{number}" for number in range(8)]
        pool.until(lambda: is_ready(pool))


def test_while_the_model_loads_the_server_lives_and_is_not_ready(journal: Journal) -> None:
    """RP-10."""
    with serving(journal, loads=False, POOLED_LOAD="3", POOLED_REPLICAS="1") as pool:
        with fresh(pool.server) as http:
            pool.until(lambda: pool.replicas != [])
            assert http.get("/lm/-/live").status_code == 200
            refused = http.get("/lm/-/ready")
            assert refused.status_code == 503
            assert "loading" in refused.text
            assert not [note for note in journal.so_far() if note.startswith("loaded")]
            assert pool.run("patient")["name"] == "patient"
            pool.until(lambda: is_ready(pool))


# -- the end of a server


def test_a_pool_ends_after_the_calls_that_its_server_had_accepted(journal: Journal) -> None:
    """GU-03."""
    with serving(journal) as pool, ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(asked, pool, name, 1.5) for name in "ab"]
        for name in "ab":
            journal.until(f"began {name}")
        pool.server.signal(signal.SIGTERM)
        pool.server.logged("Shutting down")
        with pytest.raises(ConnectionRefusedError):
            pool.server.connect()
        assert [call.result().status_code for call in calls] == [200, 200]
        assert pool.server.ended(within=DRAIN) == 0


def test_calls_that_would_outlast_the_drain_get_an_error_across_the_pool(journal: Journal) -> None:
    """GU-04: a stream without end, and a call of a minute."""
    with serving(journal) as pool, ThreadPoolExecutor(2) as threads:
        call = threads.submit(asked, pool, "call", 60.0)
        stream = threads.submit(streamed, pool, "s")
        journal.until("began call")
        pool.server.signal(signal.SIGTERM)
        start = time.monotonic()
        last = stream.result().rpartition("event: ")[2]
        assert last.startswith("error"), last
        assert "ReplicaDied" in last
        refused = call.result()
        assert (refused.status_code, refused.json()["error"]["retriable"]) == (503, True)
        assert pool.server.ended(within=DRAIN + 2.0) == 0
        assert time.monotonic() - start < DRAIN + 2.0
        journal.until("closed s")


def streamed(pool: Pooled, name: str) -> str:
    with pool.server.client() as http:
        return http.post("/lm/stream", json={"data": {"name": name, "pause": 0.05}}).text


def test_a_call_that_cannot_be_stopped_and_a_stream_behind_it_hold_up_the_end_of_nothing(journal: Journal) -> None:
    with serving(journal, POOLED_REPLICAS="1") as pool, ThreadPoolExecutor(2) as threads, pool.server.client() as http:
        with http.stream("POST", "/lm/sync_stream", json={"data": {"name": "s"}}) as stream:
            lines = stream.iter_lines()
            next(lines)  # it has begun, and has its next step behind the call
            call = threads.submit(asked, pool, "call", 60.0)
            journal.until("began call")
            [replica] = pool.replicas
            start = instance.started(replica)
            pool.server.signal(signal.SIGTERM)
            assert pool.server.ended(within=DRAIN + 2.0) == 0
            pool.until(lambda: not pool.hosts() and not instance.alive(replica, start))
        assert call.result().status_code == 503


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_ends_a_server_and_its_pool_sooner(journal: Journal, second: int) -> None:
    """GU-05."""
    with serving(journal, "--graceful-timeout", "60") as pool, ThreadPoolExecutor(1) as threads:
        call = threads.submit(asked, pool, "call", 60.0)
        journal.until("began call")
        pool.server.signal(signal.SIGTERM)
        pool.server.logged("Shutting down")
        pool.server.signal(second)
        assert pool.server.ended(within=6.0) == 0
        assert call.result().status_code == 503


def test_a_server_that_is_asked_to_end_while_its_pool_loads_ends_at_once(journal: Journal) -> None:
    """GU-05."""
    with serving(journal, loads=False, POOLED_LOAD="60") as pool:
        pool.until(lambda: len(pool.replicas) == 2)
        replicas = pool.replicas
        pool.server.signal(signal.SIGTERM)
        assert pool.server.ended(within=5.0) == 0
        pool.until(lambda: not any(instance.alive(pid, instance.started(pid)) for pid in replicas))


def test_a_server_that_is_asked_to_end_while_it_reloads_ends(journal: Journal) -> None:
    """GU-05: gunicorn takes no signal while its reload waits for the old workers, for as long as `--graceful-timeout`."""
    with serving(journal) as pool:
        old = set(pool.workers)
        pool.server.signal(signal.SIGHUP)
        pool.until(lambda: bool(set(pool.workers) - old))
        pool.server.signal(signal.SIGTERM)
        assert pool.server.ended(within=2 * DRAIN + 3.0) == 0


# -- what an arbiter does


def test_a_worker_whose_loop_is_blocked_does_not_affect_others(journal: Journal) -> None:
    """GU-07: gunicorn kills it, and says so."""
    with serving(journal, "--timeout", "2") as pool:
        replicas, workers = pool.replicas, set(pool.workers)
        blocking = threading.Thread(target=cut_off, args=(pool,))
        blocking.start()
        journal.until("blocking")
        for number in range(20):
            assert pool.run(str(number))["pid"] in replicas
        pool.server.logged("WORKER TIMEOUT")
        blocking.join()
        pool.until(lambda: len(pool.workers) == 2 and workers != set(pool.workers))
        assert len(workers & set(pool.workers)) == 1
        assert pool.replicas == replicas
        assert pool.run()["pid"] in replicas


def cut_off(pool: Pooled) -> None:
    with pool.server.client() as http, suppress(httpx.HTTPError):
        http.get("/block", params={"seconds": 60})


def test_a_preloaded_application_has_its_pool_too(journal: Journal) -> None:
    """GU-08: what the arbiter loads starts nothing in it."""
    with serving(journal, "--preload") as pool:
        assert len(pool.hosts()) == 1
        assert pool.host not in pool.server.members()
        before = pool.replicas
        with Hammer(pool) as hammer:
            hammer.more(20)
            workers = set(pool.workers)
            pool.server.signal(signal.SIGHUP)
            pool.until(lambda: len(pool.workers) == 2 and not workers & set(pool.workers))
            hammer.more(20)
        assert not hammer.failed
        assert pool.replicas == before


def test_workers_added_and_taken_away_share_the_pool(journal: Journal) -> None:
    """GU-09: TTIN and TTOU."""
    with serving(journal, workers=1) as pool:
        before = pool.replicas
        with Hammer(pool) as hammer:
            for number, count in [(signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)]:
                pool.server.signal(number)
                pool.until(lambda count=count: len(pool.workers) == count)  # type: ignore[misc]
                hammer.more(20)
        assert not hammer.failed
        assert pool.replicas == before


def test_a_server_that_starts_itself_anew_has_a_pool_of_its_own_until_the_old_one_ends(
    journal: Journal, tmp_path: Path
) -> None:
    """GU-09: USR2, then TERM to the old arbiter."""
    pid_file = tmp_path / "pid"
    with serving(journal, "--pid", str(pid_file), started_by="tests.doubles.gunicorn_script") as pool:
        old, replicas = pool.server.process.pid, pool.replicas
        with Hammer(pool) as hammer:
            hammer.more(20)
            pool.server.signal(signal.SIGUSR2)
            new_file = tmp_path / "pid.2"
            pool.until(lambda: new_file.exists() and bool(new_file.read_text()))
            new = int(new_file.read_text())
            pool.until(lambda: len(journal.so_far()) == 4)  # replicas that have loaded: two of each
            pool.server.signal(signal.SIGTERM)
            assert pool.server.ended(within=10.0) == 0
            pool.until(lambda: not any(instance.alive(pid, instance.started(pid)) for pid in replicas))
            hammer.more(20)
            assert len([pid for pid in processes(HOST) if place_key(new) in command(pid)]) == 1
        assert not hammer.failed
        assert old != new
        key, started = place_key(new), instance.started(new)
        os.kill(new, signal.SIGTERM)
        pool.until(lambda: not instance.alive(new, started))
        pool.until(lambda: not [pid for pid in processes(HOST) if key in command(pid)])


# -- surroundings


def test_a_server_needs_no_home_and_no_folder_for_temporary_files_that_is_there(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GU-14."""
    monkeypatch.delenv("HOME", raising=False)
    with serving(journal, TMPDIR="/there/is/no/such/folder", XDG_RUNTIME_DIR="") as pool:
        assert pool.run()["name"] == "x"


#: What measures coverage writes beside the code, as a process ends.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


@pytest.mark.skipif(not read_only.possible(), reason="needs root, and a kernel that lets it have mounts of its own")
def test_a_server_on_a_file_system_that_cannot_be_written_needs_shared_memory_alone(journal: Journal) -> None:
    """GU-14."""
    by = "tests.doubles.read_only gunicorn"
    env: dict[str, Any] = {"XDG_RUNTIME_DIR": "", "TMPDIR": "", **UNMEASURED}
    with serving(journal, "--worker-tmp-dir", "/dev/shm", started_by=by, **env) as pool:
        assert pool.run()["name"] == "x"
        [folder] = Path(f"/dev/shm/jina-asgi-{os.geteuid()}").glob(f"*{place_key(pool.server.process.pid)}")
    assert not folder.exists()


@pytest.mark.skipif(not read_only.possible(), reason="needs root, and a kernel that lets it have mounts of its own")
def test_a_server_whose_temporary_folder_is_full_uses_the_next_one(journal: Journal) -> None:
    full = Path(tempfile.mkdtemp(dir="/tmp"))  # as short as a socket's path must be
    env: dict[str, Any] = {"XDG_RUNTIME_DIR": str(full), "FULL": str(full), "TMPDIR": "", **UNMEASURED}
    with serving(journal, started_by="tests.doubles.read_only gunicorn", **env) as pool:
        assert pool.run()["name"] == "x"
    full.rmdir()


JUMPING = """
import time
real, real_ns = time.time, time.time_ns

def jump():
    return 86400 if int(time.monotonic() * 5) % 2 else -86400

time.time = lambda: real() + jump()
time.time_ns = lambda: real_ns() + jump() * 10**9  # what logging asks from Python 3.13 on
"""


def test_a_wall_clock_that_jumps_by_days_ends_nothing(journal: Journal, tmp_path: Path) -> None:
    """CL-01: five times a second, in every process of the server."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    path = f"{tmp_path}:{ROOT}"
    with serving(journal, "--timeout", "3", PYTHONPATH=path, POOLED_HEARTBEAT="1") as pool:
        before = pool.workers, pool.replicas
        end = time.monotonic() + 5.0  # longer than both timeouts
        with Hammer(pool) as hammer:
            while time.monotonic() < end:
                hammer.more(20)
        assert not hammer.failed
        assert (pool.workers, pool.replicas) == before
        days = {line[1:11] for line in pool.server.log.splitlines() if line.startswith("[2")}
        assert days  # of yesterday or tomorrow, as the lines were written before or after a jump
        assert str(datetime.date.today()) not in days
