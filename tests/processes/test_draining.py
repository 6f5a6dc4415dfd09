"""The end of a server under gunicorn with our configuration: what was accepted is finished, streams get a last event."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.rig import Journal, Served, request

pytestmark = pytest.mark.processes

APP = "tests.doubles.apps:both"
DRAIN = 3


def serve(journal: Journal, *options: str, app: str = APP, drain: int = DRAIN, **env: str) -> Served:
    return Served("gunicorn-uvicorn", app, "--graceful-timeout", str(drain), *options, env={**journal.env, **env})


def sent(server: Served, path: str, data: Any) -> socket.socket:
    connection = server.connect()
    connection.sendall(request(path, json.dumps({"data": data}).encode()))
    return connection


def rest(connection: socket.socket, heard: bytes = b"", *, until: bytes | None = None) -> bytes:
    """What comes, until its end or until something has come."""
    connection.settimeout(30.0)
    while until is None or until not in heard:
        chunk = connection.recv(65536)
        if not chunk:
            break
        heard += chunk
    if until is None:
        connection.close()
    return heard


def assert_ended_well(server: Served, *, within: float) -> None:
    assert server.ended(within=within) == 0, server.log
    assert "Traceback" not in server.log, server.log
    assert "SIGKILL" not in server.log, server.log
    assert [] == server.members()


def test_accepted_requests_finish_and_new_ones_are_refused(journal: Journal) -> None:
    with serve(journal) as server:
        asked = [sent(server, f"{prefix}/slow", [{"name": "a", "pause": 1.5}]) for prefix in ("", "/lm")]
        asked.append(sent(server, "/hold", [{"name": "b", "pause": 1.5}]))
        for name in ("began a", "began b"):
            journal.until(name)
        server.signal(signal.SIGTERM)
        server.logged("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        answers = [rest(connection) for connection in asked]
        assert [True] * 3 == [answer.startswith(b"HTTP/1.1 200") for answer in answers]
        assert_ended_well(server, within=DRAIN)
    assert ["unloaded", "host has ended"] == journal.so_far()[-2:]


@pytest.mark.parametrize("prefix", ["", "/lm"], ids=["root", "mounted"])
def test_calls_that_would_outlast_the_drain_get_an_error_shortly_before_its_end(journal: Journal, prefix: str) -> None:
    with serve(journal) as server:
        streams = [
            sent(server, prefix + path, {"name": path, "pause": 0.05})
            for path in ("/stream", "/idle-stream", "/sync-stream")
        ]
        heard = [rest(connection, until=b"event: update") for connection in streams]
        call = sent(server, f"{prefix}/wait", [{"name": "call"}])
        journal.until("began call")
        before = time.monotonic()
        server.signal(signal.SIGTERM)
        texts = [rest(connection, said) for connection, said in zip(streams, heard, strict=True)]
        lasted = time.monotonic() - before
        answer = rest(call)
        assert_ended_well(server, within=DRAIN + 2.0)
    assert lasted > 1.0  # they went on meanwhile
    assert texts[0].count(b"event: update") > 10
    for text in texts:
        last = text.rpartition(b"event: ")[2]
        assert last.startswith(b"error"), text[-500:]
        assert b"ReplicaDied" in last
        assert b"draining" in last
        assert text.endswith(b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in answer
    assert b"draining" in answer
    for note in ("closed /stream", "closed /idle-stream", "closed /sync-stream", "cancelled call", "unloaded"):
        journal.until(note, within=0.1)


def test_a_second_sigterm_speeds_up(journal: Journal) -> None:
    with serve(journal, drain=60) as server:
        stream = sent(server, "/stream", {"name": "s", "pause": 0.05})
        heard = rest(stream, until=b"event: update")
        server.signal(signal.SIGTERM)
        server.logged("Waiting for connections to close")
        heard = rest(stream, until=b"event: update")
        server.signal(signal.SIGTERM)
        assert b"ReplicaDied" in rest(stream, heard)
        assert_ended_well(server, within=4.0)
    journal.until("unloaded", within=0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_end_at_once_with_an_error_for_callers(journal: Journal, number: int) -> None:
    with serve(journal, drain=60) as server:
        stream = sent(server, "/stream", {"name": "s", "pause": 0.05})
        heard = rest(stream, until=b"event: update")
        server.signal(number)
        assert b"ReplicaDied" in rest(stream, heard)
        assert_ended_well(server, within=4.0)


def test_readers_that_do_not_read_hold_up_nothing(journal: Journal) -> None:
    with serve(journal) as server:
        greedy = [sent(server, "/stream", {"name": "g", "text": "x" * 10_000}) for _ in range(20)]
        for connection in greedy:
            rest(connection, until=b"event: update")
        server.signal(signal.SIGTERM)
        assert_ended_well(server, within=DRAIN + 2.0)
        for connection in greedy:
            connection.close()


@pytest.mark.parametrize("app", ["loading", "waiting"])
def test_term_while_it_loads_ends_at_once(journal: Journal, app: str) -> None:
    with serve(journal, app=f"tests.doubles.apps:{app}", drain=20, LOAD="15") as server:
        journal.until("loading", within=30.0)
        server.signal(signal.SIGTERM)
        assert_ended_well(server, within=5.0)
    assert "loaded" not in journal.so_far()


def test_term_before_the_app_is_there(journal: Journal) -> None:
    with serve(journal) as server:
        server.signal(signal.SIGTERM)
        assert server.ended(within=10.0) == 0
        assert [] == server.members()


HOLDS_ITS_WORKERS = """
import time
from jina_asgi.gunicorn import *
from tests.doubles.rig import note

def post_fork(arbiter, worker):
    note("forked")
    time.sleep(60)  # as long as it takes to be told to end
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_worker_that_has_just_been_forked_is_not_waited_for(journal: Journal, tmp_path: Path, number: int) -> None:
    """GU-05: such a worker has the handlers of gunicorn itself, which would only keep the signal."""
    (tmp_path / "conf.py").write_text(HOLDS_ITS_WORKERS)
    with serve(journal, "-c", str(tmp_path / "conf.py"), drain=20) as server:
        journal.until("forked")
        server.signal(number)
        assert_ended_well(server, within=10.0)


def test_many_streams_end_within_the_drain(journal: Journal) -> None:
    with serve(journal) as server:
        streams = [sent(server, "/idle-stream", {"name": str(number)}) for number in range(200)]
        heard = [rest(connection, until=b"event: update") for connection in streams]
        server.signal(signal.SIGTERM)
        texts = [rest(connection, said) for connection, said in zip(streams, heard, strict=True)]
        assert 200 == sum(b"event: error" in text for text in texts)
        assert_ended_well(server, within=DRAIN + 2.0)


def test_streams_get_their_last_event_on_a_slow_machine(journal: Journal) -> None:
    """A turn of the loop takes longer than a fifth of the pause after which connections are closed."""
    with serve(journal) as server:
        streams = [sent(server, "/idle-stream", {"name": str(number)}) for number in range(20)]
        heard = [rest(connection, until=b"event: update") for connection in streams]
        with server.client() as http:
            assert http.get("/lm-slow-turns", params={"seconds": 0.06}).status_code == 200
        server.signal(signal.SIGTERM)
        texts = [rest(connection, said) for connection, said in zip(streams, heard, strict=True)]
        assert 20 == sum(b"event: error" in text for text in texts)
        server.ended(within=DRAIN + 4.0)


@pytest.mark.parametrize("prefix", ["", "/lm"], ids=["root", "mounted"])
def test_a_stream_whose_step_does_not_return_gets_its_last_event(journal: Journal, prefix: str) -> None:
    with serve(journal) as server:
        stream = sent(server, f"{prefix}/sync-stream", {"name": "s", "pause": 20.0})
        heard = rest(stream, until=b"event: update")
        server.signal(signal.SIGTERM)
        last = rest(stream, heard).rpartition(b"event: ")[2]
        assert last.startswith(b"error")
        assert b"ReplicaDied" in last
        server.ended(within=DRAIN + 4.0)


@pytest.mark.parametrize("kind", ["gunicorn-asgi", "uvicorn", "hypercorn", "granian"])
def test_other_servers_finish_what_they_accepted(journal: Journal, kind: str) -> None:
    with Served(kind, APP, env=journal.env) as server:
        asked = [sent(server, f"{prefix}/slow", [{"name": "a", "pause": 1.0}]) for prefix in ("", "/lm")]
        journal.until("began a")
        server.signal(signal.SIGTERM)
        assert [True, True] == [rest(connection).startswith(b"HTTP/1.1 200") for connection in asked]
        assert server.ended(within=10.0) in (0, -signal.SIGTERM)  # uvicorn ends by the signal it caught
        assert "Traceback" not in server.log, server.log
    journal.until("unloaded", within=0.1)
