"""Starts each system, measures them in interleaved rounds, and prints ratios to the first one.

A round visits every system in turn, so that a noisy minute hurts all of them; the others are stopped (SIGSTOP)
meanwhile. Ratios are paired within a round, and the table shows the medians of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
PEERS = Path(
    os.environ.get("JINA_ASGI_BENCH")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jina-asgi-bench"
)
SERVER_CORE, LOAD_CORE = {0}, {1}
READY_SECONDS = 90.0

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as both `http.client` and the load generators send it."""

    path: str
    body: bytes
    content_type: str = "application/json"
    method: str = "POST"


def over_http(port: int, request: Request) -> bytes:
    """The answer to one request, on a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(request.method, request.path, request.body, {"Content-Type": request.content_type})
        answer = connection.getresponse()
        raw = answer.read()
    if answer.status != 200:
        raise WrongAnswer(f"{answer.status} {raw[:300]!r}")
    return raw


@dataclass(frozen=True, slots=True)
class System:
    """A server under test: how it starts (`serve_<script>.py PORT ARGS`), what it is asked, what is right.

    `peer` names the environment it runs in; None is this one. `request` makes a request from a random word,
    `check` tells whether an answer's bytes are the right ones for it; `ask` sends one, and raises OSError or
    WrongAnswer where there is no answer.
    """

    name: str
    script: str
    request: Callable[[str], Request]
    check: Callable[[str, bytes], bool]
    args: Sequence[str] = ()
    peer: str | None = None
    ask: Callable[[int, Request], bytes] = over_http

    @property
    def python(self) -> Path:
        return Path(sys.executable) if self.peer is None else PEERS / self.peer / "bin" / "python"

    def command(self, port: int) -> list[str]:
        return [str(self.python), str(HERE / f"serve_{self.script}.py"), str(port), *self.args]


class Server:
    """A started system. Its processes are those that carry our mark in their environment; none outlives it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.port = free_port()
        self.mark = f"BENCHMARK={uuid.uuid4().hex}"

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self.log = Path(self.folder.name, "log")
        name, value = self.mark.split("=")
        quiet = {"JINA_LOG_LEVEL": "ERROR", "JINA_OPTOUT_TELEMETRY": "1", "BENTOML_DO_NOT_TRACK": "1"}
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.system.command(self.port),
                env={**os.environ, **quiet, **one_thread, "PYTHONWARNINGS": "ignore", name: value},
                cwd=self.folder.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait(READY_SECONDS)
            self.pin()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self, limit: float) -> None:
        """Return once an answer is right; a server that starts cannot be waited for otherwise."""
        end, why = time.monotonic() + limit, ""
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.check()
                return
            except (OSError, http.client.HTTPException, WrongAnswer) as error:
                why = repr(error)
            time.sleep(0.05)
        raise NotStarted(f"{self.system.name}: {why}\n{self.log.read_text()[-2000:]}")

    def check(self) -> None:
        """Send one request that was never sent before, and compare the answer."""
        word = uuid.uuid4().hex
        raw = self.system.ask(self.port, self.system.request(word))
        if not self.system.check(word, raw):
            raise WrongAnswer(f"{self.system.name} answered {raw[:300]!r}")

    def pids(self) -> list[int]:
        found = []
        for path in glob.glob("/proc/[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in Path(path).read_bytes():
                    found.append(int(path.split("/")[2]))
        return found

    def pin(self) -> None:
        """All its threads to one core; after the start, which may take more than one."""
        for pid in self.pids():
            for task in glob.glob(f"/proc/{pid}/task/[0-9]*"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task.rsplit("/", 1)[1]), SERVER_CORE)

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def cpu(self) -> float:
        """Seconds of CPU time that its processes have used."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        self.signal(signal.SIGCONT)
        try:
            self.wait(10)
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.process.terminate()
        end = time.monotonic() + 3
        while time.monotonic() < end and self.pids():
            time.sleep(0.05)
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.folder.cleanup()


class NotStarted(RuntimeError):
    """A system gave no right answer in time."""


class WrongAnswer(RuntimeError):
    """A system answered something else."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Systems on the same work. The first is the one that the others are compared with.

    `measure(server, cell, seconds)` answers the figures of one round; `main` names the one that ratios are of.
    """

    title: str
    cells: Mapping[str, int]
    systems: Sequence[System]
    measure: Callable[[Server, int, float], Row]
    main: str
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, names: Sequence[str], seconds: float, rounds: int) -> None:
        chosen = [system for system in self.systems if not names or system.name in names]
        with contextlib.ExitStack() as stack:
            servers = [server for system in chosen if (server := self.started(system, stack)) is not None]
            os.sched_setaffinity(0, LOAD_CORE)
            for number in range(-1, rounds):  # the first one warms up
                for cell, size in self.cells.items():
                    for server in servers if number % 2 else reversed(servers):
                        self.visit(server, cell, size, seconds, warm=number < 0)

    def started(self, system: System, stack: contextlib.ExitStack) -> Server | None:
        if not system.python.exists():
            self.failures.append(f"{system.name}: no environment; setup_peers.sh makes it")
            return None
        os.sched_setaffinity(0, SERVER_CORE | LOAD_CORE)
        try:
            server = stack.enter_context(Server(system))
        except NotStarted as error:
            self.failures.append(f"{system.name} did not start: {error}")
            return None
        server.signal(signal.SIGSTOP)
        return server

    def visit(self, server: Server, cell: str, size: int, seconds: float, *, warm: bool) -> None:
        name = server.system.name
        try:
            with server.awake():
                before = server.cpu()
                row = dict(self.measure(server, size, 0.5 if warm else seconds))
                row["CPU µs"] = (server.cpu() - before) * 1e6 / max(row.pop("count"), 1)
        except (RuntimeError, OSError) as error:
            self.failures.append(f"{name}, {cell}: {error}")
            return
        if not warm:
            self.rows.setdefault(cell, {}).setdefault(name, []).append(row)
            print(f"  {cell}  {name}: {row[self.main]:.0f}", file=sys.stderr, flush=True)

    def markdown(self) -> str:
        """A table a cell: medians, the ratio's least and greatest value beside its median."""
        lines = [f"## {self.title}"]
        for cell, systems in self.rows.items():
            base = next(iter(system.name for system in self.systems if system.name in systems))
            columns = list(systems[base][0])
            lines += ["", f"### {cell}", "", f"| | × {base} | " + " | ".join(columns) + " |"]
            lines += ["|---|--:|" + "--:|" * len(columns)]
            for system in self.systems:
                if rows := systems.get(system.name):
                    cells = [f"{statistics.median(row[column] for row in rows):.4g}" for column in columns]
                    ratio = spread(ratios(rows, systems[base], self.main))
                    lines.append(f"| {system.name} | {ratio} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", *(f"- {failure}" for failure in dict.fromkeys(self.failures))])


def ratios(rows: Sequence[Row], base: Sequence[Row], column: str) -> list[float]:
    return [row[column] / other[column] for row, other in zip(rows, base, strict=False) if other[column]]


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def parser(description: str | None, seconds: float, rounds: int) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=seconds, help="a system's turn in a round (%(default)s)")
    options.add_argument("--rounds", type=int, default=rounds, help="(%(default)s)")
    options.add_argument("--systems", default="", help="names, with commas between; all of them if left out")
    options.add_argument("--out", type=Path, help="a file for every round's figures, as JSON")
    return options


def main(benchmarks: Sequence[Benchmark], options: argparse.Namespace) -> None:
    """Run and print; ends with status 1 if a system failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = [name for name in options.systems.split(",") if name]
    for benchmark in benchmarks:
        benchmark.run(names, options.seconds, options.rounds)
        print(benchmark.markdown(), flush=True)
    if options.out:
        options.out.write_text(json.dumps({b.title: b.rows for b in benchmarks}, indent=1))
    if any(benchmark.failures for benchmark in benchmarks):
        sys.exit(1)


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
