"""What the soaks of a server share: clients that check every answer, and what a server leaves behind when it ends.

Every request carries a nonce, which its answer must hold in capitals. What becomes of one is a word: "right", "wrong",
"silent" (nothing within `SILENCE`), "cut" (its connection ended), "refused" (nobody listened), or the type of the error
that it was told. "raced" counts beside these: a kept connection that the server closed as the client reused it, which
every client of HTTP answers by asking again over another.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from jina_asgi.processes import host_socket, instance
from tests.doubles.pool_watch import Watched
from tests.doubles.rig import LOCAL, Journal, Served, request, shared_memory

SILENCE = 30.0  # seconds after which a request counts as never answered
SETTLED = 60.0  # seconds in which a server must have become what it should be
APP = "tests.faults.soaked:asgi"
_MARK = "SOAKED_SERVER"  # in the environment of all that a server starts


class Client:
    """One client: a request at a time, over one connection or over one each."""

    def __init__(self, port: int, on: str, *, keeps: bool) -> None:
        self.port, self.on, self.keeps = port, on, keeps
        self.raced = 0
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, nonce: str, pause: float) -> str:
        """What becomes of one request."""
        body = json.dumps({"data": [{"nonce": nonce, "pause": pause}]}).encode()
        try:
            async with asyncio.timeout(SILENCE):
                status, answer = await self._exchange(request(self.on, body, close=not self.keeps))
        except TimeoutError:
            self.close()
            return "silent"
        except ConnectionRefusedError:
            return "refused"
        except (ConnectionError, EOFError):
            self.close()
            return "cut"
        if status == 200:
            return "right" if answer["data"] == [{"nonce": nonce.upper(), "pause": 0.0}] else "wrong"
        return str(answer["error"]["type"])

    def close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def _exchange(self, asked: bytes) -> tuple[int, Any]:
        if self._connection is not None:
            try:
                return await self._answered(asked)
            except (ConnectionError, EOFError):
                self.raced += 1
                self.close()
        self._connection = await asyncio.open_connection(LOCAL, self.port)
        return await self._answered(asked)

    async def _answered(self, asked: bytes) -> tuple[int, Any]:
        assert self._connection is not None
        reader, writer = self._connection
        writer.write(asked)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(lines["content-length"]))
        if not self.keeps or lines.get("connection") == "close":
            self.close()
        return int(head.split(" ", 2)[1]), json.loads(body)


class Load:
    """Clients that ask until told to stop; `async with`."""

    def __init__(self, port: int, count: int, seed: int) -> None:
        kinds = itertools.cycle([("/again", True), ("/again", False), ("/once", False)])
        self._clients = [Client(port, on, keeps=keeps) for on, keeps in itertools.islice(kinds, count)]
        self._dice = random.Random(seed)
        self._over = asyncio.Event()
        self._more = asyncio.Event()
        self.outcomes: dict[str, Counter[str]] = {"/again": Counter(), "/once": Counter()}

    async def __aenter__(self) -> Self:
        self._asking = [asyncio.create_task(self._ask(number)) for number in range(len(self._clients))]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._asking)

    @property
    def asked(self) -> int:
        return sum(counts.total() for counts in self.outcomes.values())

    @property
    def raced(self) -> int:
        return sum(client.raced for client in self._clients)

    async def more(self, count: int) -> None:
        """Wait until so many more requests have come to something."""
        wanted = self.asked + count
        while self.asked < wanted:
            self._more.clear()
            await self._more.wait()

    async def _ask(self, number: int) -> None:
        client, count = self._clients[number], 0
        while not self._over.is_set():
            count += 1
            self.outcomes[client.on][await client.ask(f"n{number}-{count}", self._dice.uniform(0.0, 0.01))] += 1
            self._more.set()
        client.close()


class Soaked(Watched):
    """One server and its pool. What it starts can be told by its environment, what it writes by its folders."""

    def __init__(self, server: Served, folder: Path, mark: str, journal: Journal) -> None:
        super().__init__(server)
        self.journal, self._folder, self._mark = journal, folder, mark

    def loads(self) -> int:
        """How many replicas have loaded so far."""
        return sum(note.startswith("loaded ") for note in self.journal.so_far())

    def told(self) -> dict[str, Any]:
        """What the host says of its one Deployment; nothing while there is none."""
        for path in self._folder.glob("*/*/socket"):
            try:
                found = host_socket.status(path)
            except (ConnectionError, json.JSONDecodeError):  # it was killed meanwhile
                continue
            for deployment in {} if found is None else found["deployments"].values():
                return dict(deployment)
        return {"users": 0, "replicas": {}}

    def serving(self) -> set[int]:
        """The replicas that can be asked."""
        return {seat["pid"] for seat in self.told()["replicas"].values() if seat["state"] == "ready"}

    async def until(self, what: Callable[[], bool], within: float = SETTLED) -> None:
        """Wait for a state of processes that are not ours: there is no event to wait on."""
        deadline = time.monotonic() + within
        while not await asyncio.to_thread(what):
            assert time.monotonic() < deadline, f"not so within {within} s:\n{self.server.log[-5000:]}"
            await asyncio.sleep(0.01)

    def family(self) -> list[int]:
        """Every living process that this server has started, however indirectly."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]

    def left(self) -> list[str]:
        """What is left of it: processes, and files other than the user's own empty folder."""
        files = [path for path in self._folder.rglob("*") if path.parent != self._folder]
        return [*(f"process {pid}" for pid in self.family()), *map(str, files)]

    async def end(self, within: float = 15.0) -> None:
        """End the server by SIGTERM; nothing may be left of it."""
        self.server.signal(signal.SIGTERM)
        code = await asyncio.to_thread(self.server.ended, within=within)
        assert code == 0, f"the server ended with {code}:\n{self.server.log[-5000:]}"
        await self.until(lambda: not self.left(), within)

    def _is_ours(self, pid: int) -> bool:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
        return f"{_MARK}={self._mark}".encode() in environ.split(b"\0") and instance.alive(pid, instance.started(pid))


@asynccontextmanager
async def soaked(*options: str, workers: int = 4, replicas: int = 2, wait: bool = True) -> AsyncIterator[Soaked]:
    """A server under gunicorn; it has ended within the block, or is killed with all that it started."""
    folder, mark, journal = Path(tempfile.mkdtemp(prefix="soak-")), os.urandom(8).hex(), Journal()
    env = {**journal.env, "XDG_RUNTIME_DIR": str(folder), _MARK: mark, "SOAKED_REPLICAS": str(replicas)}
    words = ["--workers", str(workers), *options]
    server = await asyncio.to_thread(lambda: Served("gunicorn-uvicorn", APP, *words, env=env))
    try:
        one = Soaked(server, folder, mark, journal)
        if wait:
            await one.until(lambda: len(one.serving()) == replicas and len(one.workers) == workers)
        yield one
    finally:
        await asyncio.to_thread(server.__exit__)
        for pid in one.family():
            os.kill(pid, signal.SIGKILL)
        journal.close()
        shutil.rmtree(folder, ignore_errors=True)


def boot_time(pid: int) -> float:
    """When a process started, by the clock of `now`."""
    ticks = instance.started(pid)
    assert ticks is not None, f"process {pid} is gone"
    return ticks / os.sysconf("SC_CLK_TCK")


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def told(name: str, held: bool, facts: str) -> bool:
    """Print a soak's result; whether it held."""
    print(f"{name}: {facts}; {'held' if held else 'BROKEN'}", flush=True)
    return held


def soak(doc: str | None, soaks: Mapping[str, Callable[[int, int], Coroutine[Any, Any, bool]]]) -> None:
    """A program: each soak as often as its option says. Ends with 1 where one did not hold, or left shared memory."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in soaks:
        parser.add_argument(f"--{option}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of each number, so much: 0.05 to try it")
    options = parser.parse_args()
    counts = {name: getattr(options, name) for name in soaks}
    before = shared_memory()
    held = asyncio.run(_all(soaks, {n: max(1, round(c * options.share)) for n, c in counts.items() if c}, options.seed))
    left = sorted(shared_memory() - before)
    print(f"left in /dev/shm: {left}")
    sys.exit(0 if held and not left else 1)


async def _all(
    soaks: Mapping[str, Callable[[int, int], Coroutine[Any, Any, bool]]], counts: Mapping[str, int], seed: int
) -> bool:
    return all([await soaks[name](count, seed) for name, count in counts.items()])
