"""One running server of each kind, which serves every example of a host."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.rig import LOCAL, ROOT, Journal, Served

collect_ignore = ["watched"]

GUNICORN = ["gunicorn", "--no-control-socket", "-b", f"{LOCAL}:0"]
UVICORN = ["uvicorn", "--host", LOCAL, "--port"]
COMMANDS = {
    "gunicorn -c python:jina_asgi.gunicorn": [*GUNICORN, "-c", "python:jina_asgi.gunicorn", "-w", "2", "over_asgi:app"],
    "gunicorn -k asgi": [*GUNICORN, "-k", "asgi", "over_asgi:app"],
    "uvicorn": [*UVICORN, "0", "over_asgi:app"],
    "uvicorn --workers": [*UVICORN, "{port}", "--workers", "2", "over_asgi:app"],
    "hypercorn": ["hypercorn", "-b", f"{LOCAL}:0", "over_asgi:app"],
    "granian": ["granian", "--interface", "asgi", "--host", LOCAL, "--port", "{port}", "over_asgi:app"],
    "gunicorn": [*GUNICORN, "over_wsgi:app"],
    "gunicorn -k gthread": [*GUNICORN, "-k", "gthread", "--threads", "4", "over_wsgi:app"],
}


@dataclass(frozen=True)
class Running:
    """A server, what its apps noted, and whether each had begun to load before anybody asked."""

    server: Served
    journal: Journal
    states: dict[str, str]

    def look(self, hosts: list[str]) -> None:
        """Learn the state of each host's Executor, which asking does not change."""
        for host in hosts:
            with self.client(host) as http:
                figures = http.get("/-/status" if host in ("alone", "pooled") else "/lm/-/status").json()
            self.states[host] = next(iter(figures["deployments"].values()))["state"]

    def end(self) -> None:
        """Ask the server to end; whatever was loaded in it is closed by then."""
        self.server.signal(signal.SIGTERM)
        self.server.ended(within=20.0)
        for life in [note.partition(" ")[2] for note in self.journal.so_far() if note.startswith("loaded ")]:
            self.journal.until(f"unloaded {life}")
        if (
            "hypercorn.error" not in self.server.log
        ):  # it may cancel, and log so, what its own dispatcher has just ended
            assert "Traceback" not in self.server.log, self.server.log

    def client(self, host: str) -> httpx.Client:
        return self.server.client(headers={"x-host": host})


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[str, list[str]], Running]]:
    """A server of this kind with these hosts, started by the first test that asks for it."""
    started: dict[str, Running | Exception] = {}
    with ExitStack() as stack:

        def begun(kind: str) -> Running:
            journal = Journal()
            stack.callback(journal.close)
            path = os.pathsep.join([str(ROOT), str(ROOT / "examples" / "hosts")])
            options: Any = {"env": {**journal.env, "PYTHONPATH": path}, "cwd": Path(__file__).parent / "watched"}
            name = "granian" if "{port}" in COMMANDS[kind] else kind
            return Running(stack.enter_context(Served(name, "", command=COMMANDS[kind], **options)), journal, {})

        def ask(kind: str, hosts: list[str]) -> Running:
            if kind not in started:
                try:
                    one = started[kind] = begun(kind)
                    one.look(hosts)
                except Exception as error:
                    started[kind] = error
            found = started[kind]
            if isinstance(found, Exception):  # what did not start once is not tried by every test
                raise found
            return found

        yield ask
        for one in started.values():
            if isinstance(one, Running):
                one.end()
