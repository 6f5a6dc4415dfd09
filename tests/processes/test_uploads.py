"""Uploads to real servers: memory while a large file comes, and what is left of callers who leave and of dead workers."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jina_asgi import Client
from tests.doubles.rig import LOCAL, Journal, Served
from tests.processes.uploading import Read

pytestmark = pytest.mark.processes

MIB = 2**20
HEAD = b'--b\r\ncontent-disposition: form-data; name="clip"; filename="a.mp4"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"


@contextmanager
def served(folder: Path, app: str, *options: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    here = {"TMPDIR": str(folder), **(env or {})}
    with Served("gunicorn-uvicorn", f"tests.processes.uploading:{app}", *options, env=here) as server:
        until(lambda: ready(server), "the server is ready")
        yield server


def ready(server: Served) -> bool:
    with server.client() as http:
        return http.get("/-/ready").status_code == 200


def until(holds: Callable[[], bool], what: str, *, within: float = 60.0) -> None:
    """Wait until something holds that only the file system or another process can say."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.05)


def files(folder: Path) -> list[Path]:
    """The files of uploads, and their folders."""
    found = [Path(at, name) for at, below, names in os.walk(folder) for name in (*below, *names)]
    return [path for path in found if path.parent != folder and "jina-asgi-uploads-" in str(path)]


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("app", ["worker", "pool"])
def test_a_large_file_is_never_in_memory(tmp_path: Path, app: str) -> None:
    """200 MiB to a Path, by curl and our Client, in a form and alone: no process of the server grows by 40 MiB."""
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(200 * MIB)
    with served(tmp_path, app) as server:
        small = tmp_path / "small.bin"
        small.write_bytes(bytes(2 * MIB))
        for given in (small, large):
            before = {pid: peak(pid) for pid in server.members()}
            by_form = ["-F", f"clip=@{given}", f"{server.url}/read"]
            alone = ["-H", "content-type: application/octet-stream", "--data-binary", f"@{given}", f"{server.url}/read"]
            size = given.stat().st_size
            for command in (by_form, alone):
                done = subprocess.run(["curl", "-sS", *command], check=True, capture_output=True, text=True)
                assert f'"data":[{{"size":{size},' in done.stdout, done.stdout
            with Client(f"{server.url}") as client:
                (found,) = client.post("/batched", files={"clip": given}, return_type=list[Read])
            assert size == found.size
        grown = {pid: peak(pid) - size for pid, size in before.items()}
        print(
            {
                Path(f"/proc/{pid}/comm").read_text().strip() + str(pid): f"{size / MIB:.1f} MiB"
                for pid, size in grown.items()
            }
        )
        assert 2 <= len(grown)
        assert not {pid: size for pid, size in grown.items() if size > 40 * MIB}
        until(lambda: not files(tmp_path), "no file is left")


def test_files_of_a_worker_that_is_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    journal = Journal()
    with served(tmp_path, "pool", "-w", "1", env=journal.env) as server:
        with server.connect() as connection:
            connection.sendall(request("/hold", bytes(2 * MIB), name="one"))
            journal.until("began one")
            assert 2 == len(files(tmp_path))
            (worker,) = workers(server)
            os.kill(worker, signal.SIGKILL)
            journal.until("told one")
            until(lambda: not files(tmp_path), "the next worker has removed what the killed one left")
        until(lambda: ready(server), "the server is ready again")
        server.signal(signal.SIGTERM)
        assert 0 == server.ended(within=20)
    assert [] == list(tmp_path.glob("jina-asgi-uploads-*"))
    journal.close()


def test_files_of_a_call_that_a_drain_ends_are_removed(tmp_path: Path) -> None:
    journal = Journal()
    with served(tmp_path, "worker", "--graceful-timeout", "4", env=journal.env) as server:
        with server.connect() as connection:
            connection.sendall(request("/hold", bytes(2 * MIB), name="one"))
            journal.until("began one")
            server.signal(signal.SIGTERM)
            assert 0 == server.ended(within=20)
    assert [] == list(tmp_path.glob("jina-asgi-uploads-*"))
    journal.close()


@pytest.mark.parametrize(("app", "count"), [("worker", 1500), ("pool", 1000)])
def test_nothing_is_left_of_thousands_who_leave_or_send_what_they_should_not(
    tmp_path: Path, app: str, count: int
) -> None:
    """Whole, cut, reset within the body or while it is answered, over limits, no form: by a seed."""
    with served(tmp_path, app, "-w", "1") as server:
        (worker,) = workers(server)
        _crowd(server, range(100))  # what is made once is there
        until(lambda: not files(tmp_path), "no file is left")
        before = residue(worker)
        outcomes = _crowd(server, range(1000, 1000 + count))
        until(lambda: not files(tmp_path), "no file is left")
        until(lambda: residue(worker) == before, f"descriptors and threads as before: {before}, now {residue(worker)}")
        assert [worker] == workers(server)
        assert set(outcomes) <= {0, 200, 400, 413, 422}, outcomes
        assert outcomes.count(200) > count // 6, outcomes
        with server.client() as http:
            answer = http.post("/batched", files={"clip": b"abc"})
            assert 3 == answer.json()["data"][0]["size"]
        assert "Traceback" not in server.log, server.log[-3000:]


def workers(server: Served) -> list[int]:
    """The web workers of a server of gunicorn's."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    found = [int(pid) for pid in children.split()]
    return [pid for pid in found if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def residue(pid: int) -> tuple[int, int]:
    """How many descriptors, and threads, a process has."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def request(path: str, data: bytes, **fields: Any) -> bytes:
    """A request that uploads a file, with texts in fields beside it."""
    texts = b"".join(
        f'--b\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    )
    body = texts + HEAD + data + TAIL
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: multipart/form-data; boundary=b"]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "connection: close", "", ""]).encode() + body


def _crowd(server: Served, seeds: range) -> list[int]:
    """The statuses that callers got, 0 for those who left."""
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(lambda seed: _caller(server.port, random.Random(seed)), seeds))


def _caller(port: int, dice: random.Random) -> int:
    path = dice.choice(["/read", "/batched", "/batched", "/stream", "/fails", "/bytes", "/post"])
    data = bytes(dice.choice([0, 10, 20_000, 300_000, 1_500_000, 3_000_000]))
    pause = dice.choice([0, 0, 0.02])
    given = request(path, data, exec_endpoint="/batched", pause=pause)
    way = dice.choice(["whole", "whole", "whole", "cut", "reset", "leave", "text", "long", "broken"])
    if way == "text":
        given = given.replace(filename := b'; filename="a.mp4"', b" " * len(filename))
    elif way == "long":
        given = given.replace(b"content-length: ", b"content-length: 9999999")
    elif way == "broken":
        given = given.replace(b"--b--", b"--c--")
    with socket.create_connection((LOCAL, port), 30) as connection:
        try:
            if way in ("cut", "reset"):
                connection.sendall(given[: dice.randrange(len(given))])
            else:
                connection.sendall(given)
            if way in ("leave", "cut", "reset"):
                time.sleep(dice.choice([0, 0, 0.002, 0.03]))
                if dice.random() < 0.5:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return 0
            answer = connection.recv(4096)
            while connection.recv(4096):
                pass
            return int(answer.split()[1])
        except (ConnectionError, IndexError):
            return 0  # refused while it still sent
