"""Real servers for tests: started on a port of their own, watched through what they log, ended with their group.

`Journal` is how a served app tells a test what happened in it: a datagram an event, waited for, never polled.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

ROOT = Path(__file__).parents[2]
LOCAL = "127.0.0.1"

#: How each server is started; `{app}` is "module:name".
COMMANDS = {
    "gunicorn-asgi": ["gunicorn", "--no-control-socket", "-k", "asgi", "-b", f"{LOCAL}:0", "{app}"],
    "gunicorn-uvicorn": ["gunicorn", "-c", "python:jina_asgi.gunicorn", "-b", f"{LOCAL}:0", "{app}"],
    "uvicorn": ["uvicorn", "--host", LOCAL, "--port", "0", "{app}"],
    "hypercorn": ["hypercorn", "-b", f"{LOCAL}:0", "{app}"],
    "granian": ["granian", "--interface", "asgi", "--host", LOCAL, "--port", "{port}", "{app}"],
}
SERVERS = list(COMMANDS)


class Served:
    """One running server; used as `with`."""

    def __init__(
        self,
        server: str,
        app: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        command: list[str] | None = None,
    ) -> None:
        words = [word.format(app=app, port=_free_port()) for word in command or COMMANDS[server]]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words, *options],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            address = self.logged(rf"http://{re.escape(LOCAL)}:(\d+)")
            self.port = int(address[1])
            if server == "granian":
                self._until_it_listens()
        except AssertionError:
            self.__exit__()
            raise
        self.url = f"http://{LOCAL}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends whatever is left of the server's process group."""
        while left := self.members():  # again: a master that is still there replaces the workers that go first
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.poll()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def logged(self, pattern: str, *, within: float = 30.0) -> re.Match[str]:
        """Wait for a line of the log."""
        deadline, seen = time.monotonic() + within, 0
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if (found := re.search(pattern, line)) is not None:
                        return found
                seen = len(self._lines)
                assert self._reader.is_alive(), f"the server ended before it logged {pattern!r}:\n{self.log}"
                left = deadline - time.monotonic()
                assert left > 0, f"{pattern!r} was not logged within {within} s:\n{self.log}"
                self._changed.wait(left)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, *, within: float) -> int:
        """Wait for the server's end; its exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server had not ended within {within} s:\n{self.log}") from None

    def members(self) -> list[int]:
        """The processes of this server that are alive (not zombies)."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(group) == self.process.pid and state not in "ZX":
                    found.append(int(entry.name))
        return found

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30.0, verify=False, **options)  # type: ignore[arg-type]

    def connect(self) -> socket.socket:
        return socket.create_connection((LOCAL, self.port), 10.0)

    def _until_it_listens(self, *, within: float = 30.0) -> None:
        """The one poll here: granian says that it listens before it does."""
        deadline = time.monotonic() + within
        while True:
            try:
                self.connect().close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, f"nothing listens at port {self.port}:\n{self.log}"
                with self._changed:
                    self._changed.wait(0.05)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


class Journal:
    """Receives what served apps `note`."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOCAL, 0))
        self.notes: list[str] = []
        self.env = {"JOURNAL": str(self._socket.getsockname()[1])}

    def until(self, note: str, *, within: float = 10.0) -> float:
        """Wait for a note; how long it took to come, in seconds."""
        start = time.monotonic()
        while note not in self.notes:
            left = start + within - time.monotonic()
            assert left > 0, f"{note!r} was not noted within {within} s; noted: {self.notes[-20:]}"
            self._receive(left)
        return time.monotonic() - start

    def after(self, note: str, *, within: float = 10.0) -> str:
        """Wait for a note and the one behind it; that one."""
        self.until(note, within=within)
        if self.notes[-1] == note:
            assert self._receive(within), f"nothing was noted after {note!r}"
        return self.notes[self.notes.index(note) + 1]

    def so_far(self) -> list[str]:
        """What has been noted by now."""
        while self._receive(0.0):
            pass
        return self.notes

    def close(self) -> None:
        self._socket.close()

    def _receive(self, timeout: float) -> bool:
        self._socket.settimeout(timeout)
        try:
            self.notes.append(self._socket.recv(1024).decode())
        except (TimeoutError, BlockingIOError):
            return False
        return True


def note(text: str) -> None:
    """Tell the journal of the test that started this process, if one did."""
    port = os.environ.get("JOURNAL")
    if port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), (LOCAL, int(port)))


def request(path: str, body: bytes, *, close: bool = False) -> bytes:
    """The bytes of a POST of JSON."""
    connection = b"connection: close\r\n" if close else b""
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + connection + b"\r\n" + body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        port: int = probe.getsockname()[1]
        return port


def shared_memory() -> set[str]:
    """What has a name there, but for the user's own folder, which stays, and multiprocessing's semaphores.

    This library has none of these; a real Jina, which tests beside this one may serve, leaves them behind.
    """
    found = {name for name in os.listdir("/dev/shm") if not name.startswith("sem.mp-")}
    return found - {f"jina-asgi-{os.geteuid()}"}
