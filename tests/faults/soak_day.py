"""A day in some minutes: a steady mixed load with callers that leave, and what each process of the server has at its end.

    python -m tests.faults.soak_day --seconds 600             # at its end what it had after a tenth, within 1 %
    python -m tests.faults.soak_day --seconds 3600 --hour     # from the tenth minute on less than 1 MB an hour more

The load: calls, batched and not, in the web worker and in a replica; streams that are read and that are left; WebSockets
that close with calls open; bodies that are half sent; errors, wrong documents, and calls whose callers leave. Every text is
another one, and pydantic keeps thousands of those that it has read: they are sent first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from websockets.asyncio.client import connect

from tests.doubles.rig import LOCAL, Served
from tests.faults.wire import Wire, post

APP = "tests.faults.soaked_day:app"
WORKERS = 2
PAUSE = 1.5  # seconds without load before a look: connections and calls end a moment after their callers
SETTLED = 600.0  # seconds after which memory must be what it will be
MIB = 2**20


@dataclass(frozen=True)
class Look:
    """What one process has."""

    name: str
    memory: int
    descriptors: int
    threads: int

    @classmethod
    def at(cls, pid: int) -> Look:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        threads = len(os.listdir(f"/proc/{pid}/task"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
        return cls(" ".join(words[1:4]), resident, len(os.listdir(f"/proc/{pid}/fd")), threads)


class Day:
    """The callers of one server."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.dice = port, random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.http = self.new_client()
        self.kinds: list[tuple[int, Callable[[str], Awaitable[str]]]] = [
            (60, self.call),
            (8, self.read_stream),
            (8, self.left_stream),
            (8, self.left_call),
            (8, self.left_socket),
            (4, self.half_a_body),
            (2, self.wrong_documents),
            (2, self.error),
        ]

    def new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{LOCAL}:{self.port}", timeout=30.0)

    async def load(self, seconds: float, rate: float) -> None:
        """As many callers a second, at random moments; until the last has come to an end."""
        self.http = self.new_client()
        weights, makes = zip(*self.kinds, strict=True)
        until, due = time.monotonic() + seconds, time.monotonic()
        async with asyncio.TaskGroup() as callers:
            while due < until:
                due += self.dice.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                (make,) = self.dice.choices(makes, weights)
                callers.create_task(self.outcome(make, self.dice.choice(["/worker", "/pool"])))
        await self.http.aclose()

    async def outcome(self, make: Callable[[str], Awaitable[str]], where: str) -> None:
        self.outcomes[await make(where)] += 1

    async def call(self, where: str) -> str:
        text, on = str(self.dice.random()), self.dice.choice(["/echo", "/work"])
        answer = await self.http.post(f"{where}{on}", json={"data": [{"text": text}]})
        return "right" if answer.status_code == 200 and answer.json()["data"][0]["text"] == text else answer.text[:100]

    async def error(self, where: str) -> str:
        answer = await self.http.post(f"{where}/work", json={"data": [{"text": "bad"}]})
        return "error" if answer.status_code == 500 else f"an error answered {answer.status_code}"

    async def wrong_documents(self, where: str) -> str:
        answer = await self.http.post(f"{where}/echo", json={"data": [{"text": 5}]})
        return "refused" if answer.status_code == 422 else f"wrong documents answered {answer.status_code}"

    async def read_stream(self, where: str) -> str:
        on = self.dice.choice(["/stream", "/sync_stream"])
        async with self.http.stream("POST", f"{where}{on}", json={"data": {"text": "x"}}) as response:
            events = [line async for line in response.aiter_lines() if line.startswith("event: ")]
        return "read" if events == ["event: update"] * 20 + ["event: end"] else f"a stream of {len(events)} events"

    async def left_stream(self, where: str) -> str:
        on = self.dice.choice(["/stream", "/sync_stream"])
        async with self.http.stream("POST", f"{where}{on}", json={"data": {"text": "x"}}) as response:
            async for _ in response.aiter_lines():
                return "left a stream"
        return "an empty stream"

    async def left_call(self, where: str) -> str:
        async with Wire(self.port) as wire:
            await wire.send(post(f"{where}/slow", b'{"data": [{"text": "x"}]}'))
            await asyncio.sleep(self.dice.uniform(0.0, 0.4))
        return "left a call"

    async def left_socket(self, where: str) -> str:
        async with connect(f"ws://{LOCAL}:{self.port}{where}/-/ws", compression=None) as socket:
            for number in range(3):
                on = self.dice.choice(["/slow", "/work", "/stream"])
                await socket.send(json.dumps({"id": number, "endpoint": on, "data": {"text": "x"}}))
            with suppress(TimeoutError):
                async with asyncio.timeout(self.dice.uniform(0.0, 0.2)):
                    await socket.recv()
        return "left a socket"

    async def half_a_body(self, where: str) -> str:
        async with Wire(self.port) as wire:
            await wire.send(post(f"{where}/echo", b'{"data": [', length="1000"))
            await asyncio.sleep(self.dice.uniform(0.0, 0.2))
        return "sent half a body"

    async def fill(self) -> None:
        """Have each worker read as many different texts as pydantic keeps (16,384 of up to 63 bytes, some 1.5 MB): it never
        lets go of them, and would be seen to grow for an hour."""
        for _ in range(4 * WORKERS):
            async with self.new_client() as http:
                for _ in range(30):
                    texts = [{"text": str(self.dice.random())} for _ in range(2000)]
                    await http.post("/worker/echo", json={"data": texts})

    async def tasks(self) -> dict[str, int]:
        """The most tasks that a web worker, and the replica, say they have, each asked over connections of its own."""
        most: dict[str, int] = {}
        for where in ("/worker", "/pool"):
            for _ in range(4 * WORKERS):
                async with self.new_client() as http:
                    answer = await http.post(f"{where}/tasks", json={"data": [{"text": ""}]})
                most[where] = max(most.get(where, 0), answer.json()["data"][0]["tasks"])
        return most


async def day(seconds: float, rate: float, seed: int, bound: str) -> bool:
    """Whether every process has at its end what it had after the first tenth, and every caller was answered."""
    looks: list[dict[int, Look]] = []
    with tempfile.TemporaryDirectory(prefix="day-") as folder:
        env = {"XDG_RUNTIME_DIR": folder}
        with await asyncio.to_thread(
            lambda: Served("gunicorn-uvicorn", APP, "--workers", str(WORKERS), env=env)
        ) as server:
            callers, tasks = Day(server.port, seed), list[dict[str, int]]()
            while not (await callers.http.get("/pool/-/ready")).is_success:
                await asyncio.sleep(0.1)  # another process loads: there is no event to wait on
            await callers.fill()
            await callers.load(seconds / 20, rate)  # so that each worker has seen everything once
            for part in range(10):
                await callers.load(seconds / 10, rate)
                await asyncio.sleep(PAUSE)
                looks.append({pid: Look.at(pid) for pid in family(server.process.pid)})
                tasks.append(await callers.tasks())
                print(f"{(part + 1) * 10:3} % {tasks[-1]} {described(looks[-1])}", flush=True)
    expected = {
        "right",
        "error",
        "refused",
        "read",
        "left a stream",
        "left a call",
        "left a socket",
        "sent half a body",
    }
    odd = {said: count for said, count in callers.outcomes.items() if said not in expected}
    print(f"callers: {dict(callers.outcomes)}")
    troubles = [f"answers: {odd}"] if odd else []
    first, last = looks[0], looks[-1]
    if first.keys() != last.keys():
        troubles.append(f"processes: {sorted(first)} became {sorted(last)}")
    if any(tasks[-1][where] > tasks[0][where] for where in tasks[0]):
        troubles.append(f"tasks: {tasks[0]} became {tasks[-1]}")
    for pid in first.keys() & last.keys():
        troubles += left_by(pid, [look[pid] for look in looks], seconds, bound)
    print("\n".join(troubles) or "nothing is left")
    return not troubles


def left_by(pid: int, looks: list[Look], seconds: float, bound: str) -> list[str]:
    """What is wrong with one process."""
    first, last = looks[0], looks[-1]
    times, memory = np.linspace(seconds * 0.15, seconds * 1.05, len(looks)), np.array([look.memory for look in looks])
    settled = times >= (SETTLED if bound == "hour" else 0.0)
    hourly = float(np.polyfit(times[settled], memory[settled], 1)[0]) * 3600 / MIB
    print(f"{pid} ({first.name}): {first.memory / MIB:.1f} to {last.memory / MIB:.1f} MiB, {hourly:+.2f} MiB an hour")
    found = [
        f"{pid}: {what} {getattr(first, what)} became {getattr(last, what)}"
        for what in ("descriptors", "threads")
        if getattr(last, what) > getattr(first, what)
    ]
    if bound == "hour" and hourly >= 1.0:
        found.append(f"{pid}: {hourly:.2f} MiB an hour")
    if bound == "memory" and last.memory > first.memory * 1.01:
        found.append(f"{pid}: {first.memory / MIB:.1f} became {last.memory / MIB:.1f} MiB")
    return found


def family(pid: int) -> list[int]:
    """A process and all that descend from it: its workers, the pool host, the replicas."""
    children: dict[int, list[int]] = {}
    for other in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):
            stat = Path(f"/proc/{other}/stat").read_text()
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(other)
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return sorted(found)


def described(looks: dict[int, Look]) -> str:
    return "; ".join(
        f"{pid}: {look.memory / MIB:.1f} MiB {look.descriptors} fd {look.threads} thr" for pid, look in looks.items()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=100.0, help="callers a second")
    parser.add_argument("--seed", type=int, default=0)
    bounds = parser.add_mutually_exclusive_group()
    for bound, said in (("hour", "of memory look at the slope alone"), ("counts", "look at all but memory")):
        bounds.add_argument(f"--{bound}", action="store_const", dest="bound", const=bound, default="memory", help=said)
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(day(options.seconds, options.rate, options.seed, options.bound)) else 1)
