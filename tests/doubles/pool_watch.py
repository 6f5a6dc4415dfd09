"""A pool behind a real server as the system sees it: its host, its replicas, the server's workers; and who asks it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Self

import httpx

from jina_asgi.processes import instance
from tests.doubles.rig import Served

APP = "tests.doubles.pooled:app"
HOST = "jina_asgi.serving.programs.pool_host"
SETTLED = 15.0  # seconds that a pool may take to be whole again: its replicas import docarray on two busy cores


class Watched:
    """The processes of one server's pool."""

    def __init__(self, server: Served) -> None:
        self.server = server

    @property
    def workers(self) -> list[int]:
        return [pid for pid in self.server.members() if pid != self.server.process.pid]

    @property
    def host(self) -> int:
        [host] = self.hosts()
        return host

    def hosts(self) -> list[int]:
        key = place_key(self.server.process.pid)
        return [pid for pid in processes(HOST) if key in command(pid)]

    @property
    def replicas(self) -> list[int]:
        return [pid for host in self.hosts() for pid in children(host)]


class Pooled(Watched):
    """The application `pooled` behind a server."""

    def run(self, name: str = "x", pause: float = 0.0) -> dict[str, object]:
        """One call over a connection of its own; threads must not share a client (encode/httpcore#1110)."""
        with self.server.client() as http:
            answer = http.post("/lm/run", json={"data": [{"name": name, "pause": pause}]})
        assert answer.status_code == 200, answer.text
        [doc] = answer.json()["data"]
        assert doc["name"] == name
        return dict(doc)

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SETTLED
        while not what():
            assert time.monotonic() < deadline, self.server.log
            time.sleep(0.05)  # processes come and go: there is no event to wait on


class Hammer:
    """Threads that ask until told to stop; every answer is checked, and those that failed are kept."""

    def __init__(self, pool: Pooled, count: int = 4) -> None:
        self._pool, self._enough = pool, Event()
        self.failed: list[str] = []
        self.answered = 0
        self._threads = ThreadPoolExecutor(count)
        self._count = count

    def __enter__(self) -> Self:
        self._asking = [self._threads.submit(self._ask, index) for index in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for asking in self._asking:
            asking.result()
        self._threads.shutdown()

    def more(self, count: int = 50) -> None:
        """Wait until so many more were answered."""
        wanted = self.answered + count
        self._pool.until(lambda: self.answered >= wanted)

    def _ask(self, index: int) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            try:
                self._pool.run(f"{index}-{number}", 0.001)
                self.answered += 1
            except (httpx.HTTPError, AssertionError) as error:
                self.failed.append(repr(error))


def fresh(server: Served) -> httpx.Client:
    """A connection a request, so that each goes to whichever worker takes it."""
    return server.client(limits=httpx.Limits(max_keepalive_connections=0))


def children(pid: int) -> list[int]:
    """The living processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # that thread has ended
    return [child for child in found if instance.alive(child, instance.started(child))]


def command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def processes(module: str) -> list[int]:
    """The living processes that run a module."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if module in command(pid) and instance.alive(pid, instance.started(pid))]


def place_key(pid: int) -> str:
    """The key of the server instance whose life is a process's."""
    return f"{pid}-{instance.started(pid)}-{os.stat('/proc/self/ns/pid').st_ino}"
