"""The JSON WebSocket on every server: opened, answered, left, and ended with it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.doubles.rig import Journal, Served
from tests.processes.conftest import Running

pytestmark = pytest.mark.processes

APP = "tests.doubles.apps:both"


@contextmanager
def opened(server: Served, path: str = "/-/ws", **options: Any) -> Iterator[ClientConnection]:
    url = f"{server.url.replace('http', 'ws')}{path}"
    with connect(url, max_size=None, compression=None, proxy=None, **options) as socket:
        yield socket


def ask(socket: ClientConnection, identity: Any, endpoint: str, **fields: Any) -> None:
    socket.send(json.dumps({"id": identity, "endpoint": endpoint, "data": fields}))


def heard(socket: ClientConnection) -> dict[str, Any]:
    """The next event that is no ping."""
    while (event := json.loads(socket.recv(30.0)))["event"] == "ping":
        pass
    found: dict[str, Any] = event
    return found


def outcome(socket: ClientConnection, identity: Any) -> dict[str, Any]:
    """The last event of a call."""
    while (event := heard(socket))["id"] != identity or event["event"] == "data":
        pass
    return event


def rest(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """The events up to the end of the socket, and its close code."""
    events = []
    while True:
        try:
            events.append(heard(socket))
        except ConnectionClosed as closed:
            return events, closed.rcvd.code if closed.rcvd else 1006


@pytest.mark.parametrize("path", ["/-/ws", "/lm/-/ws"], ids=["root", "mounted"])
def test_calls_and_streams_are_answered(running: Running, path: str) -> None:
    with opened(running.server, path) as socket:
        for number in range(20):
            ask(socket, number, "/stream" if number % 2 else "/echo", name="n", count=3)
        counts = dict.fromkeys(range(20), 0)
        ended = set[int]()
        while len(ended) < 20:
            event = heard(socket)
            assert event["event"] in ("data", "end"), event
            counts[event["id"]] += event["event"] == "data"
            if event["event"] == "end":
                ended.add(event["id"])
    assert {number: 3 if number % 2 else 1 for number in range(20)} == counts


def test_a_large_document_comes_back_whole(running: Running) -> None:
    text = "é" * 1_000_000
    with opened(running.server) as socket:
        ask(socket, 1, "/echo", text=text)
        assert text == heard(socket)["data"][0]["text"]


def test_gunicorn_with_our_configuration_compresses_no_websocket(shared: Callable[[str], Running]) -> None:
    url = shared("gunicorn-uvicorn").server.url.replace("http", "ws") + "/-/ws"
    with connect(url, compression="deflate", proxy=None) as socket:
        assert [] == list(socket.protocol.extensions)


def test_cancel_closes_the_generator(running: Running) -> None:
    with opened(running.server) as socket:
        ask(socket, 1, "/stream", name=f"cancelled {running.kind}", pause=0.01)
        heard(socket)
        socket.send(json.dumps({"id": 1, "event": "cancel"}))
        assert {"id": 1, "event": "end", "cancelled": True} == outcome(socket, 1)
        running.journal.until(f"closed cancelled {running.kind}", within=1.0)


@pytest.mark.parametrize("tokens", [0, 1, 50])
@pytest.mark.parametrize("how", ["closed", "cut"])
def test_a_client_that_leaves_stops_its_generators(running: Running, how: str, tokens: int) -> None:
    name = f"{how} at {tokens} by {running.kind}"
    with opened(running.server) as socket:
        ask(socket, 1, "/stream", name=name, pause=0.005)
        ask(socket, 2, "/idle-stream", name=f"idle {name}")
        came = 0
        while came < tokens:
            came += heard(socket)["id"] == 1
        if tokens == 0:
            ask(socket, 3, "/echo")
            outcome(socket, 3)
        if how == "cut":
            socket.socket.close()
    running.journal.until(f"closed {name}", within=2.0)
    running.journal.until(f"closed idle {name}", within=2.0)


def test_readers_that_do_not_read_hold_their_generators_and_no_others(running: Running) -> None:
    with opened(running.server, max_queue=1) as slow:
        ask(slow, 1, "/stream", name=f"slow {running.kind}", text="x" * 100_000)
        with opened(running.server) as other:
            for number in range(20):
                ask(other, number, "/echo")
                assert "end" == outcome(other, number)["event"]
        slow.socket.close()
    running.journal.until(f"closed slow {running.kind}", within=5.0)
    made = running.journal.after(f"made slow {running.kind}")
    assert int(made) < 400, "about 20 MB lie in buffers of the system; a generator that is not held makes thousands"


def test_pages_of_another_origin_are_refused(running: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        with opened(running.server, origin="http://evil.test"):
            raise AssertionError("it was opened")
    assert 403 == refused.value.response.status_code
    with opened(running.server, origin=running.server.url) as socket:
        ask(socket, 1, "/echo")
        assert "end" == outcome(socket, 1)["event"]


def test_a_mistake_ends_no_other_socket(running: Running) -> None:
    with opened(running.server) as bystander, opened(running.server) as socket:
        ask(bystander, 1, "/stream", name="bystander", count=30, pause=0.01)
        socket.send("x" * 2_000_000)
        assert "InvalidRequest" == heard(socket)["error"]["type"]
        socket.send(b"\x00")
        with pytest.raises(ConnectionClosed) as closed:
            heard(socket)
        assert closed.value.rcvd is not None
        assert 1003 == closed.value.rcvd.code
        assert {"id": 1, "event": "end"} == outcome(bystander, 1)


def test_accepted_calls_finish_within_the_drain_and_the_socket_closes_1001(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, "--graceful-timeout", "6", env=journal.env) as server:
        with opened(server) as socket, opened(server, "/lm/-/ws") as idle:
            ask(socket, 1, "/slow", name="a", pause=1.0)
            ask(socket, 2, "/stream", name="s", count=50, pause=0.02)
            journal.until("began a")
            server.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                heard(idle)
            assert closed.value.rcvd is not None
            assert 1001 == closed.value.rcvd.code
            events, code = rest(socket)
            assert 1001 == code
            assert [1, 50] == [sum(e["id"] == number and e["event"] == "data" for e in events) for number in (1, 2)]
            assert {1, 2} == {event["id"] for event in events if event["event"] == "end"}
        assert 0 == server.ended(within=6.0), server.log
        assert "Traceback" not in server.log, server.log
    journal.until("unloaded", within=0.1)


def test_calls_that_would_outlast_the_drain_get_an_error(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", APP, "--graceful-timeout", "3", env=journal.env) as server:
        with opened(server) as socket:
            for number, endpoint in enumerate(("/wait", "/idle-stream")):
                ask(socket, number, endpoint, name=endpoint)
            journal.until("began /wait")
            server.signal(signal.SIGTERM)
            said = {event["id"]: event for event in (outcome(socket, 0),)}
            assert "ReplicaDied" == said[0]["error"]["type"]
        assert 0 == server.ended(within=5.0), server.log
        assert "Traceback" not in server.log, server.log
    for note in ("cancelled /wait", "closed /idle-stream", "unloaded"):
        journal.until(note, within=0.1)


#: hypercorn 0.18 first waits for every connection on Python 3.12 and newer, where asyncio's `wait_closed` does so.
HYPERCORN_WAITS = sys.version_info >= (3, 12)


@pytest.mark.parametrize("kind", ["uvicorn", "granian", *(() if HYPERCORN_WAITS else ("hypercorn",))])
def test_other_servers_end_and_leave_nothing_running(journal: Journal, kind: str) -> None:
    """When they close a WebSocket, and by which code, is theirs: our generators are closed, and they end in time."""
    with Served(kind, APP, env=journal.env) as server:
        with opened(server) as socket:
            ask(socket, 1, "/stream", name="s", pause=0.02)
            heard(socket)
            server.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                outcome(socket, 1)
        journal.until("closed s", within=10.0)
        assert server.ended(within=15.0) in (0, -signal.SIGTERM)
    journal.until("unloaded", within=0.1)


def test_gunicorns_own_worker_waits_for_its_sockets_and_is_killed_then(journal: Journal) -> None:
    with Served("gunicorn-asgi", APP, "--graceful-timeout", "2", env=journal.env) as server:
        with opened(server) as socket:
            ask(socket, 1, "/stream", name="s", count=50, pause=0.02)
            heard(socket)
            server.signal(signal.SIGTERM)
            assert {"id": 1, "event": "end"} == outcome(socket, 1)
            with pytest.raises(ConnectionClosed):
                heard(socket)
        assert 0 == server.ended(within=10.0)


@pytest.mark.skipif(not HYPERCORN_WAITS, reason="hypercorn closes its sockets by itself before Python 3.12")
def test_hypercorn_waits_for_its_sockets(journal: Journal) -> None:
    with Served("hypercorn", APP, env=journal.env) as server:
        with opened(server) as socket:
            ask(socket, 1, "/stream", name="s", count=50, pause=0.02)
            heard(socket)
            server.signal(signal.SIGTERM)
            assert {"id": 1, "event": "end"} == outcome(socket, 1)
        assert 0 == server.ended(within=10.0)
    journal.until("unloaded", within=0.1)
