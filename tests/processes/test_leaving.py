"""A client that leaves stops the work, on every server, at the root and behind a host with two middlewares."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from typing import Any

import pytest

from tests.processes.conftest import Running
from tests.processes.rig import Served, request

pytestmark = [pytest.mark.processes, pytest.mark.parametrize("prefix", ["", "/lm"], ids=["root", "mounted"])]

names = (f"leaving-{number}" for number in itertools.count())

#: Seconds from a client's leaving to the end of its work, where a step takes no time of its own.
SOON = 1.0


def sent(server: Served, path: str, data: Any) -> socket.socket:
    """A connection on which a request has been sent whole."""
    connection = server.connect()
    connection.sendall(request(path, json.dumps({"data": data}).encode()))
    return connection


def reset(connection: socket.socket) -> None:
    """Leave by RST, as a killed client does behind some networks."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_an_async_call_is_cancelled(running: Running, prefix: str) -> None:
    name = next(names)
    connection = sent(running.server, f"{prefix}/wait", [{"name": name}])
    running.journal.until(f"began {name}")
    connection.close()
    running.journal.until(f"cancelled {name}", within=SOON)


def test_an_async_call_is_cancelled_by_a_reset(running: Running, prefix: str) -> None:
    name = next(names)
    connection = sent(running.server, f"{prefix}/wait", [{"name": name}])
    running.journal.until(f"began {name}")
    reset(connection)
    running.journal.until(f"cancelled {name}", within=SOON)


def test_a_running_sync_call_is_told_and_queued_work_never_starts(running: Running, prefix: str) -> None:
    holds, queued, after = next(names), next(names), next(names)
    holding = sent(running.server, f"{prefix}/hold", [{"name": holds}])
    running.journal.until(f"began {holds}")
    waiting = sent(running.server, f"{prefix}/quick", [{"name": queued}])
    with running.server.client() as client:  # answered behind it on the same loop: it is in the queue
        client.post(f"{prefix}/slow", json={"data": [{"name": after, "pause": 0.3}]})
    waiting.close()
    with running.server.client() as client:
        client.post(f"{prefix}/slow", json={"data": [{"name": after, "pause": 0.3}]})
    holding.close()
    running.journal.until(f"told {holds}", within=SOON)
    with running.server.client() as client:
        assert client.post(f"{prefix}/quick", json={"data": [{"name": after}]}).status_code == 200
    running.journal.until(f"ran {after}")
    assert f"ran {queued}" not in running.journal.notes


@pytest.mark.parametrize("endpoint", ["/stream", "/sync-stream", "/idle-stream"])
def test_a_stream_is_closed(running: Running, prefix: str, endpoint: str) -> None:
    name = next(names)
    connection = sent(running.server, prefix + endpoint, {"name": name, "pause": 0.05})
    heard = b""
    while b"event: update" not in heard:
        heard += connection.recv(65536)
    connection.close()
    running.journal.until(f"closed {name}", within=SOON)


def test_a_client_that_stays_gets_its_slow_answer(running: Running, prefix: str) -> None:
    with running.server.client() as client:
        answer = client.post(f"{prefix}/slow", json={"data": [{"name": next(names), "pause": 2.0}]})
        again = client.post(f"{prefix}/slow", json={"data": [{"name": next(names), "pause": 0.3}]})
    assert [200, 200] == [answer.status_code, again.status_code]


def test_a_client_that_stays_gets_its_slow_stream(running: Running, prefix: str) -> None:
    job = {"name": next(names), "count": 5, "pause": 0.3}
    with running.server.client() as client, client.stream("POST", f"{prefix}/stream", json={"data": job}) as answer:
        text = answer.read().decode()
    assert [5, 1] == [text.count("event: update"), text.count("event: end")]


def test_a_client_that_closes_its_half_gets_its_answer_where_the_server_waits(running: Running, prefix: str) -> None:
    """uvicorn and granian go on; gunicorn's asgi worker and hypercorn take the end of input for the client's."""
    name = next(names)
    connection = sent(running.server, f"{prefix}/slow", [{"name": name, "pause": 0.5}])
    running.journal.until(f"began {name}")
    connection.shutdown(socket.SHUT_WR)
    heard = b""
    while chunk := connection.recv(65536):
        heard += chunk
    connection.close()
    print(running.server.process.args, heard[:80])
