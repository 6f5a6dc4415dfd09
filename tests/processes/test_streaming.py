"""Streams on real servers: heartbeats, readers that are slow or greedy, and hundreds of clients that come and go."""

from __future__ import annotations

import itertools
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from tests.doubles.rig import ROOT, Served, request
from tests.processes.conftest import Running

pytestmark = pytest.mark.processes

names = (f"streaming-{number}" for number in itertools.count())


def sent(server: Served, path: str, data: Any) -> socket.socket:
    connection = server.connect()
    connection.sendall(request(path, json.dumps({"data": data}).encode()))
    return connection


def until(connection: socket.socket, word: bytes) -> bytes:
    heard = b""
    while word not in heard:
        chunk = connection.recv(65536)
        assert chunk, f"the stream ended before {word!r}: {heard[-200:]!r}"
        heard += chunk
    return heard


@pytest.mark.parametrize("prefix", ["", "/lm"], ids=["root", "mounted"])
def test_an_idle_stream_gets_heartbeats(running: Running, prefix: str) -> None:
    with sent(running.server, f"{prefix}/idle-stream", {"name": next(names)}) as connection:
        until(connection, b": ping\r\n\r\n")
        until(connection, b": ping\r\n\r\n")


def test_what_makes_a_stream_stops_while_its_reader_does(running: Running) -> None:
    name = next(names)
    with sent(running.server, "/stream", {"name": name, "text": "x" * 10_000}) as connection:
        until(connection, b"event: update")
        with running.server.client() as client:  # a second on the same loop: a gigabyte, if nothing stopped it
            client.post("/slow", json={"data": [{"name": next(names), "pause": 1.0}]})
    made = int(running.journal.after(f"made {name}"))
    assert made * 10_000 < 32 * 2**20


def test_a_greedy_stream_lets_others_have_their_first_token(running: Running) -> None:
    with sent(running.server, "/stream", {"name": next(names), "pause": -1}) as greedy:

        def read() -> None:
            try:
                while greedy.recv(2**20):
                    pass
            except OSError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for path in ("/stream", "/lm/stream"):
                begun = time.monotonic()
                with sent(running.server, path, {"name": next(names), "count": 1}) as other:
                    until(other, b"event: end")
                assert time.monotonic() - begun < 5.0
        finally:
            greedy.shutdown(socket.SHUT_RDWR)
            reader.join()


def more(after: dict[str, list[str]], *, than: dict[str, list[str]]) -> dict[str, Counter[str]]:
    """What there is more of."""
    return {kind: extra for kind, found in after.items() if (extra := Counter(found) - Counter(than[kind]))}


def test_hundreds_of_clients_that_come_and_go_leave_nothing(running: Running) -> None:
    chance = random.Random(7)
    with running.server.client() as client:
        before = client.get("/lm-residue").json()
        connections = []
        for number in range(500 if "uvicorn" in running.kind else 150):  # the others are slow, and tell no more
            path = chance.choice(["/wait", "/hold", "/quick", "/slow", "/stream", "/sync-stream", "/idle-stream"])
            job = {"name": next(names), "pause": 0.01}
            body = json.dumps({"data": job if path.endswith("stream") else [job]}).encode()
            whole = request(chance.choice(["", "/lm"]) + path, body)
            connection = running.server.connect()
            connection.sendall(whole[: chance.choice([len(whole), len(whole), len(whole), len(whole) - 5, 20])])
            connections.append(connection)
            if chance.random() < 0.7:
                leaving = connections.pop(chance.randrange(len(connections)))
                if number % 2:
                    leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                leaving.close()
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + 10.0
        while left := more(client.get("/lm-residue").json(), than=before):
            assert time.monotonic() < deadline, f"left behind: {left}"
        assert 200 == client.post("/quick", json={"data": [{"name": "after"}]}).status_code
    running.journal.so_far()


def test_uvicorns_exit_handler_stays_as_it_was() -> None:
    code = (
        "from uvicorn.server import Server\n"
        "before = Server.handle_exit\n"
        "from jina_asgi.protocols.http import sse\n"
        "sse.comment('ping')\n"
        "import sys\n"
        "print('sse_starlette' in sys.modules, Server.handle_exit is before)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "True True\n" == said
