"""Crowds of callers that leave, and a real Prometheus: every request counts once, and no count ever falls."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from jina_asgi import Deployment, JinaASGI
from jina_asgi.testing import client
from tests.doubles.metered import Model, of, samples
from tests.doubles.rig import Served
from tests.doubles.uvicorn_server import free_port
from tests.hosts.test_metrics import Load, Scraper

ENDPOINTS = ("/echo", "/bad", "/full", "/batched", "/wait", "/stream")


@pytest.mark.parametrize("seed", range(3))
async def test_each_of_a_crowd_that_leaves_counts_once_and_none_stays_in_flight(seed: int) -> None:
    chance, name = random.Random(seed), f"crowd-{seed}"
    asgi = JinaASGI(Deployment(Model, name=name), metrics=True, wait_ready=True)
    asked = Counter[str]()

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in ENDPOINTS:
            asked[scope["path"]] += 1
        await asgi(scope, receive, send)

    async def caller(http: httpx.AsyncClient) -> None:
        path = chance.choice(ENDPOINTS)
        data: Any = {"text": chance.choice(("x", "bad", "wait"))}
        await http.post(path, json={"data": data if path == "/stream" else [data]})

    async with client(counting) as http:
        for _ in range(20):
            callers = [asyncio.ensure_future(caller(http)) for _ in range(30)]
            for _ in range(chance.randint(0, 20)):
                await asyncio.sleep(0)
            for one in callers:
                one.cancel()
                if chance.random() < 0.2:
                    await asyncio.sleep(0.001)
            await asyncio.wait(callers)
        async with asyncio.timeout(10.0):
            while of(found := samples((await http.get("/-/metrics")).text), "jina_asgi_requests_in_flight"):
                await asyncio.sleep(0.01)
    counted = Counter[str]()
    for labels, value in of(found, "jina_asgi_requests_total", f"deployment={name}", "protocol=http").items():
        counted[labels[0].removeprefix("endpoint=")] += int(value)
    assert sum(asked.values()) > 100
    assert asked == counted


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus, of Debian's package of that name")
def test_a_real_prometheus_sees_every_request_and_no_count_fall(tmp_path: Path) -> None:
    port = free_port()
    with Served(
        "gunicorn-uvicorn", "tests.doubles.metered:pooled", "--workers", "4", "--max-requests", "200"
    ) as server:
        target = f"static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]"
        job = f"{{job_name: ours, metrics_path: /-/metrics, scrape_interval: 1s, {target}}}"
        (tmp_path / "prometheus.yml").write_text(f"scrape_configs: [{job}]\n")
        command = [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with subprocess.Popen([*command, "--log.level=error"], cwd=tmp_path) as prometheus:
            try:
                load, scraper = Load(server), Scraper(server)
                load.ask_until_seen()
                with load.going_on():
                    for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
                        before = sum(load.answered.values())
                        server.signal(number)
                        while sum(load.answered.values()) < before + 300:
                            scraper.scrape()
                assert not load.lost
                scraper.until(load.answered)
                expected = {key.partition(" ")[::2]: float(count) for key, count in load.answered.items()}
                query = "sum by (endpoint, outcome) (jina_asgi_requests_total{deployment='served'}) > 0"
                deadline = time.monotonic() + 30.0
                while (seen := found_by(port, query)) != expected:
                    assert time.monotonic() < deadline, f"{expected} were answered, and Prometheus saw {seen}"
                    scraper.scrape()
                counts = [name for name in names(port) if name.endswith(("_total", "_count", "_sum", "_bucket"))]
                assert len(counts) > 20
                assert {} == {name: fell for name in counts if (fell := found_by(port, f"resets({name}[10m]) > 0"))}
            finally:
                prometheus.terminate()


def names(port: int) -> list[str]:
    """The names of our metrics that Prometheus has seen."""
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/label/__name__/values", timeout=30.0).json()
    return [name for name in answer["data"] if name.startswith("jina_")]


def found_by(port: int, query: str) -> dict[tuple[str, ...], float]:
    """The answer of Prometheus: the labels' values to the value."""
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=30.0).json()
    assert answer["status"] == "success", answer
    return {tuple(one["metric"].values()): float(one["value"][1]) for one in answer["data"]["result"]}
