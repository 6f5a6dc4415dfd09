"""A client that stays gets its answer whole, however long it takes: no server's word is taken for its leaving."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.doubles.rig import request
from tests.processes.conftest import Running

pytestmark = pytest.mark.processes

names = (f"staying-{number}" for number in itertools.count())


def test_slow_answers_and_slow_streams_come_whole(running: Running) -> None:
    """gunicorn's asgi worker reports a client gone once a `receive()` of it has been cancelled."""

    def ask(client: httpx.Client, path: str, job: dict[str, object]) -> str:
        return client.post(path, json={"data": job if path.endswith("stream") else [job]}).text

    jobs = [
        (prefix + path, {"name": next(names), **job})
        for prefix in ("", "/lm")
        for path, job in {"/slow": {"pause": 2.0}, "/stream": {"count": 6, "pause": 0.35}}.items()
    ]
    with running.server.client() as client, ThreadPoolExecutor(len(jobs)) as threads:
        first = list(threads.map(lambda job: ask(client, *job), jobs))
        again = list(threads.map(lambda job: ask(client, job[0], {**job[1], "pause": 0.15}), jobs))
    for heard in (first, again):
        assert [1, 6, 1, 6] == [text.count('"name":"staying') for text in heard]
        assert [0, 1, 0, 1] == [text.count("event: end") for text in heard]


def test_a_connection_is_kept_after_a_slow_answer(running: Running) -> None:
    body = json.dumps({"data": [{"name": next(names), "pause": 0.3}]}).encode()
    connection = running.server.connect()
    with connection, connection.makefile("rb") as answers:
        for _ in range(3):
            connection.sendall(request("/slow", body))
            assert b" 200 " in answers.readline()
            length = 0
            while (line := answers.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            assert b"staying" in answers.read(length)
