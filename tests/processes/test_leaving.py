"""A client that leaves stops the work, on every server, at the root and behind a host with two middlewares."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from typing import Any

import pytest

from tests.doubles.rig import Served, request
from tests.processes.conftest import Running

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


def test_a_running_sync_call_is_notified_and_queued_work_never_starts(running: Running, prefix: str) -> None:
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


def test_closing_the_sending_half_counts_as_leaving(running: Running, prefix: str) -> None:
    """An application cannot tell the two apart: every one of these servers ends the request at the end of input."""
    name = next(names)
    connection = sent(running.server, f"{prefix}/wait", [{"name": name}])
    running.journal.until(f"began {name}")
    connection.shutdown(socket.SHUT_WR)
    running.journal.until(f"cancelled {name}", within=SOON)
    connection.close()


def test_a_client_that_leaves_within_its_body_starts_nothing(running: Running, prefix: str) -> None:
    name, after = next(names), next(names)
    whole = request(f"{prefix}/quick", json.dumps({"data": [{"name": name}]}).encode())
    connection = running.server.connect()
    connection.sendall(whole[:-5])
    reset(connection)
    with running.server.client() as client:
        client.post(f"{prefix}/quick", json={"data": [{"name": after}]})
    running.journal.until(f"ran {after}")
    assert f"ran {name}" not in running.journal.notes
