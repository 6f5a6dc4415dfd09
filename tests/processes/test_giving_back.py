"""What the death of a process leaves in the pool host, and in those that read what it wrote, is given back."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.doubles.pool_watch import APP, SETTLED, Pooled, fresh
from tests.doubles.rig import Journal, Served

pytestmark = pytest.mark.processes

LARGE = 4 << 20  # bytes of a document


@pytest.fixture
def pooled(journal: Journal) -> Iterator[Pooled]:
    env = {**journal.env, "POOLED_REPLICAS": "1"}
    with Served("gunicorn-uvicorn", APP, "--workers", "1", env=env) as server:
        pool = Pooled(server)
        pool.until(lambda: is_ready(pool))
        yield pool


def is_ready(pool: Pooled) -> bool:
    with fresh(pool.server) as http:
        return http.get("/lm/-/ready").status_code == 200


def ask(pool: Pooled, pause: float = 0.0) -> None:
    """A call with a large document; its worker may be killed meanwhile."""
    with fresh(pool.server) as http, suppress(httpx.TransportError):
        http.post("/lm/run", json={"data": [{"name": "x" * LARGE, "pause": pause}]})


def arenas_of(pid: int) -> dict[int, int]:
    """The memory that a process shares, by inode: how many bytes of it are taken."""
    found = {}
    for entry in [*Path(f"/proc/{pid}/fd").iterdir(), *Path(f"/proc/{pid}/map_files").iterdir()]:
        with suppress(FileNotFoundError):
            if "memfd:jina_asgi" in os.readlink(entry):
                found[entry.stat().st_ino] = entry.stat().st_blocks * 512
    return found


def held(pid: int) -> Counter[str]:
    """What a process has of what could be left in it."""
    [threads] = re.findall(r"Threads:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Counter(threads=int(threads), descriptors=files, arenas=len(arenas_of(pid)))


def settles(pool: Pooled, wanted: dict[int, Counter[str]]) -> None:
    """Wait until each process has no more than it had."""
    deadline = time.monotonic() + SETTLED
    while more := {pid: over for pid, before in wanted.items() if (over := held(pid) - before)}:
        assert time.monotonic() < deadline, f"more than before, by process: {more}\n{pool.server.log}"
        time.sleep(0.05)  # what is given back is said to others, and there is no event to wait on


def memory_of(pool: Pooled) -> int:
    """Bytes in all the memory that the pool's processes share."""
    found: dict[int, int] = {}
    for pid in [pool.host, *pool.replicas, *pool.workers]:
        found.update(arenas_of(pid))
    return sum(found.values())


def test_processes_that_are_killed_with_large_documents_leave_nothing_in_the_others(pooled: Pooled) -> None:
    with ThreadPoolExecutor(2) as threads:
        for call in [threads.submit(ask, pooled, 0.3) for _ in range(2)]:
            call.result()
        host, [replica] = pooled.host, pooled.replicas
        before, memory = {pid: held(pid) for pid in (host, replica)}, memory_of(pooled)

        for _ in range(2):
            [worker] = pooled.workers
            calls = [threads.submit(ask, pooled, 0.3) for _ in range(2)]
            pooled.until(lambda worker=worker: sum(arenas_of(worker).values()) >= LARGE)  # type: ignore[misc]
            os.kill(worker, signal.SIGKILL)
            for call in calls:
                call.result()
            pooled.until(lambda worker=worker: worker not in pooled.workers and len(pooled.workers) == 1)  # type: ignore[misc]
            pooled.until(lambda: is_ready(pooled))
            ask(pooled)
        settles(pooled, before)
        assert memory_of(pooled) <= memory + 2 * LARGE

        [worker] = pooled.workers
        before = {pid: held(pid) for pid in (host, worker)}
        for _ in range(2):
            [replica] = pooled.replicas
            os.kill(replica, signal.SIGKILL)
            pooled.until(lambda replica=replica: pooled.replicas not in ([], [replica]))  # type: ignore[misc]
            pooled.until(lambda: is_ready(pooled))
            ask(pooled)
        settles(pooled, before)
        assert memory_of(pooled) <= memory + 2 * LARGE
