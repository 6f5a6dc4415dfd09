"""The metrics of servers with several processes: any worker shows all of them, whatever becomes of the others."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import httpx
import pytest

from tests.doubles.metered import of, samples
from tests.doubles.rig import Served

pytestmark = pytest.mark.processes

APP = "tests.doubles.metered:app"
BODY = {"data": [{"text": "x"}]}
REQUESTS = "jina_asgi_requests_total"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder below which the processes of servers meet; a short path, as sockets need it."""
    with TemporaryDirectory() as made:
        monkeypatch.setenv("XDG_RUNTIME_DIR", made)
        yield Path(made)


class Load:
    """Callers of a server, a connection a request; counts the answers by endpoint and outcome, and what got none."""

    def __init__(self, server: Served) -> None:
        self._server, self._enough = server, Event()
        self.answered, self.lost = Counter[str](), Counter[str]()
        self.pids: set[int] = set()

    def ask(self, path: str = "/echo") -> None:
        outcomes = {200: "ok", 500: "ExecutorError", 503: "Overloaded"}
        try:
            with self._server.client() as http:
                answer = http.post(path, json=BODY)
        except httpx.HTTPError:
            self.lost[path] += 1
            return
        self.answered[f"{path} {outcomes[answer.status_code]}"] += 1
        if path == "/echo":
            self.pids.add(answer.json()["data"][0]["pid"])

    def _go_on(self, path: str) -> None:
        while not self._enough.is_set():
            self.ask(path)

    def ask_until_seen(self, workers: int = 1) -> None:
        """Ask until so many workers have answered; a server may listen a moment after it says so."""
        deadline = time.monotonic() + 60.0
        while len(self.pids) < workers:
            assert time.monotonic() < deadline, f"only {self.pids} have answered"
            self.ask()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        with ThreadPoolExecutor(3) as threads:
            asking = [threads.submit(self._go_on, path) for path in ("/echo", "/bad", "/full")]
            try:
                yield
            finally:
                self._enough.set()
            for one in asking:
                one.result()


class Scraper:
    """Scrapes pages, and asserts that no count ever falls."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._before: Mapping[tuple[str, ...], float] = {}

    def scrape(self) -> Mapping[tuple[str, ...], float]:
        with self._server.client() as http:
            answer = http.get("/-/metrics")
        assert answer.status_code == 200, answer.text
        found = samples(answer.text)
        for key, value in self._before.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                assert found[key] >= value, f"{key} fell from {value} to {found[key]}"
        self._before = found
        return found

    def counted(self) -> Counter[str]:
        found = of(self.scrape(), REQUESTS, "deployment=served", "protocol=http")
        counts = {" ".join(label.partition("=")[2] for label in labels): int(value) for labels, value in found.items()}
        return Counter(counts)

    def until(self, expected: Mapping[str, int], *, within: float = 10.0) -> None:
        """Other processes write once a second."""
        deadline = time.monotonic() + within
        while (now := self.counted()) != expected:
            assert time.monotonic() < deadline, f"{expected} were answered, and {now} counted"

    def until_found(
        self, name: str, *labels: str, count: int = 1, equal: object = None, within: float = 20.0
    ) -> dict[tuple[str, ...], float]:
        """Wait for samples of a name, or for these."""
        deadline = time.monotonic() + within
        while len(found := of(self.scrape(), name, *labels)) != count or equal not in (None, found):
            assert time.monotonic() < deadline, f"{name}: {found}"
        return found


def until_gone(base: Path) -> None:
    """Wait until nothing is left; if a server has several processes, one of its own removes it."""
    deadline = time.monotonic() + 20.0
    while left := of_this_user(base):
        assert time.monotonic() < deadline, left


def of_this_user(base: Path) -> list[str]:
    return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.name != f"jina-asgi-{os.geteuid()}")


SERVERS = {
    "gunicorn-asgi": ("--workers", "2"),
    "gunicorn-uvicorn": ("--workers", "2"),
    "uvicorn": ("--workers", "2"),
    "hypercorn": ("--workers", "2"),
    "granian": ("--workers", "2"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_every_worker_shows_the_whole_server(kind: str, base: Path) -> None:
    with Served(kind, APP, *SERVERS[kind]) as server:
        load, scraper = Load(server), Scraper(server)
        load.ask_until_seen(2)
        load.ask("/bad")
        for _ in range(4):
            scraper.until(load.answered)


def test_counts_stay_exact_while_workers_are_recycled_reloaded_and_scaled(base: Path) -> None:
    options = ("--workers", "2", "--max-requests", "40", "--max-requests-jitter", "10")
    with Served("gunicorn-uvicorn", APP, *options) as server:
        load, scraper = Load(server), Scraper(server)
        with load.going_on():
            for number in (signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU):
                seen = len(load.pids)
                server.signal(number)
                while len(load.pids) < seen + 4:
                    scraper.scrape()
        assert not load.lost
        scraper.until(load.answered)
        (folder,) = base.glob("*/*/metrics")
        assert (
            len([*folder.iterdir()]) <= 2 + 2 + 2
        )  # of the workers, and the sums and the lock; two may just have ended


def test_a_killed_worker_takes_at_most_what_it_counted_in_its_last_second(base: Path) -> None:
    with Served("gunicorn-uvicorn", APP, "--workers", "2") as server:
        load, scraper = Load(server), Scraper(server)
        load.ask_until_seen(2)
        scraper.until(load.answered)
        before = dict(load.answered)
        victim = next(iter(load.pids))
        os.kill(victim, signal.SIGKILL)
        load.ask_until_seen(3)
        scraper.until(load.answered)
        assert before["/echo ok"] < load.answered["/echo ok"]


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize("kind", SERVERS)
def test_nothing_is_left_when_a_server_ends(kind: str, options: tuple[str, ...], base: Path) -> None:
    with Served(kind, APP, *options) as server:
        load, scraper = Load(server), Scraper(server)
        load.ask_until_seen(2 if options else 1)  # gunicorn's asgi worker misses a signal that comes as it boots
        scraper.until(load.answered)
        assert of_this_user(base)
        server.signal(signal.SIGTERM)
        server.ended(within=30.0)
    until_gone(base)


def test_what_a_killed_server_left_goes_with_the_next_start(base: Path) -> None:
    with Served("gunicorn-uvicorn", APP, "--workers", "2") as server:
        load = Load(server)
        load.ask_until_seen()
        Scraper(server).until(load.answered)
    killed = {path.name for path in base.glob("*/*")}
    assert killed
    with Served("uvicorn", APP) as server:
        load = Load(server)
        load.ask_until_seen()
        Scraper(server).until(load.answered)
        assert not killed & {path.name for path in base.glob("*/*")}


@pytest.mark.parametrize("kind", ["gunicorn-uvicorn", "uvicorn"])
def test_a_pool_shows_its_queue_and_replicas_and_its_counts_outlive_them(kind: str, base: Path) -> None:
    with Served(kind, "tests.doubles.metered:pooled", "--workers", "2") as server:
        load, scraper = Load(server), Scraper(server)
        load.ask_until_seen()
        for path in ("/bad", "/batched", "/batched"):
            load.ask(path)
        scraper.until(load.answered)
        found = scraper.until_found("jina_asgi_replica_memory_bytes", "deployment=served", count=2)
        assert all(value > 10**7 for value in found.values())
        scraper.until_found("jina_asgi_replicas", "deployment=served", equal={("state=ready",): 2})
        batched = ("deployment=served", "endpoint=/batched")
        counted = {(): load.answered["/batched ok"]}
        for name in ("jina_asgi_batch_items_sum", "jina_asgi_batch_queue_seconds_count"):
            assert counted == scraper.until_found(name, *batched, equal=counted)
        os.kill(next(iter(load.pids)), signal.SIGKILL)
        assert scraper.until_found("jina_asgi_replica_deaths_total", "deployment=served") == {(): 1}
        scraper.until_found("jina_asgi_replica_memory_bytes", "deployment=served", count=2)
        load.ask_until_seen(2)
        scraper.until(load.answered)
        server.signal(signal.SIGTERM)
        server.ended(within=20.0)
    until_gone(base)
