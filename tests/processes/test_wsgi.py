"""gunicorn's sync and gthread workers, which speak WSGI: streams, clients that leave, and every way to end."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.doubles.rig import LOCAL, Journal, Served, request

pytestmark = pytest.mark.processes

APP = "tests.doubles.apps:asgi"
PLAIN = ["gunicorn", "--no-control-socket", "-b", f"{LOCAL}:0", "{app}"]
WORKERS = {"sync": PLAIN, "gthread": [*PLAIN, "-k", "gthread", "--threads", "4"]}
CONFIGURED = ["gunicorn", "-c", "python:jina_asgi.gunicorn", "-b", f"{LOCAL}:0", "{app}"]

names = (f"wsgi-{number}" for number in itertools.count())


def serve(journal: Journal, worker: str, *options: str) -> Served:
    return Served(worker, APP, *options, command=WORKERS[worker], env=journal.env)


def sent(server: Served, path: str, data: Any) -> socket.socket:
    connection = server.connect()
    connection.sendall(request(path, json.dumps({"data": data}).encode()))
    return connection


def heard(connection: socket.socket, *, until: bytes = b"event: update") -> bytes:
    said = b""
    while until not in said and (part := connection.recv(65536)):
        said += part
    return said


@pytest.fixture(scope="module", params=WORKERS)
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Served, Journal]]:
    journal = Journal()
    with serve(journal, request.param) as server:
        yield server, journal
        assert "Traceback" not in server.log, server.log
    journal.close()


@pytest.mark.parametrize("endpoint", ["/stream", "/sync-stream", "/idle-stream"])
def test_a_client_that_leaves_ends_its_stream(running: tuple[Served, Journal], endpoint: str) -> None:
    """It is seen by the next event, or by the heartbeat of a stream that has none."""
    (server, journal), name = running, next(names)
    connection = sent(server, endpoint, {"name": name, "pause": 0.05})
    assert b"transfer-encoding: chunked" in heard(connection).lower()
    connection.close()
    journal.until(f"closed {name}", within=5.0)


def test_a_slow_reader_pauses_the_generator(running: tuple[Served, Journal]) -> None:
    """The system's buffers take some, this library 64 KB; a generator that nothing holds would make thousands."""
    (server, journal), name = running, next(names)
    connection = sent(server, "/stream", {"name": name, "pause": -1, "text": "x" * 50_000})
    heard(connection)
    time.sleep(1.0)  # what nobody takes is not made: there is no event for that
    connection.close()
    assert 0 < int(journal.after(f"made {name}")) < 400


def test_bodies_are_limited_and_chunked_ones_are_read(running: tuple[Served, Journal]) -> None:
    server, _ = running
    body = json.dumps({"data": [{"name": "x", "text": "y" * 100_000}]}).encode()
    with server.client(headers={"content-type": "application/json"}) as http:
        chunks = (body[at : at + 1000] for at in range(0, len(body), 1000))
        assert "y" * 100_000 == http.post("/echo", content=chunks).json()["data"][0]["text"]
    connection = server.connect()
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 70000000\r\n\r\n"
    connection.sendall(head)
    assert b" 413 " in heard(connection, until=b"\r\n")
    connection.close()


def test_no_websocket_is_offered_and_the_answer_says_so(running: tuple[Served, Journal]) -> None:
    server, _ = running
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{LOCAL}:{server.port}/-/ws"):
        pass
    assert 400 == refused.value.response.status_code
    assert b"speaks WSGI" in (refused.value.response.body or b"")


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("option", [(), ("--preload",)], ids=["", "preload"])
def test_what_was_loaded_is_closed_when_the_server_ends(journal: Journal, worker: str, option: tuple[str, ...]) -> None:
    with serve(journal, worker, *option) as server:
        with server.client() as http:
            assert 200 == http.post("/echo", json={"data": [{"name": "x"}]}).status_code
        server.signal(signal.SIGTERM)
        assert 0 == server.ended(within=10.0)
        assert "Traceback" not in server.log, server.log
    journal.until("unloaded")


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_is_recycled_closes_what_it_loaded(journal: Journal, worker: str) -> None:
    with serve(journal, worker, "--max-requests", "1") as server:
        for _ in range(2):
            with server.client() as http:
                assert 200 == http.post("/echo", json={"data": [{"name": "x"}]}).status_code
            journal.until("unloaded")
            journal.notes.clear()
        assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("worker", WORKERS)
def test_with_our_configuration_an_endless_stream_gets_its_last_event(journal: Journal, worker: str) -> None:
    """As under our own worker: shortly before `graceful_timeout`, when gunicorn kills."""
    options = ["-k", worker, "--threads", "4", "--graceful-timeout", "3"]
    with Served("gunicorn", APP, *options, command=CONFIGURED, env=journal.env) as server:
        connection = sent(server, "/stream", {"name": "endless", "pause": 0.05})
        heard(connection)
        server.signal(signal.SIGTERM)
        with connection:
            assert b'"type":"ReplicaDied"' in heard(connection, until=b'"type":"ReplicaDied"')
        assert 0 == server.ended(within=6.0)
        assert "Traceback" not in server.log, server.log
    for note in ("closed endless", "unloaded"):
        journal.until(note)
