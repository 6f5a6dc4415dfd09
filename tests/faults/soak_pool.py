"""Replicas killed again and again under load: no answer may be wrong or missing, and replacements come in time.

    python tests/faults/soak_pool.py --kills 200 --replicas 2 --clients 8 --seed 0

Every call carries a nonce, which its answer must hold. Calls to the idempotent endpoint must all be right; the others
may end with ReplicaDied: of each replica that was killed what ran, and what had run but whose answer had not left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from jina_asgi import ReplicaPool, Unavailable
from jina_asgi.runners.wrappers import Wrapper
from tests.doubles.replica_executors import Order, Worker

SILENCE = 30.0  # seconds after which a call counts as never answered
ENDPOINTS = ["/again", "/once"]


class Soak:
    """One pool, its clients, and what they got."""

    def __init__(self, pool: ReplicaPool, seed: int) -> None:
        self.pool, self.dice = pool, random.Random(seed)
        self.outcomes: dict[str, Counter[str]] = {on: Counter() for on in ENDPOINTS}
        self.recoveries: list[float] = []
        self.over = asyncio.Event()

    def seats(self) -> list[dict[str, Any]]:
        return list(Wrapper(self.pool.runner).status()["replicas"].values())

    async def client(self, number: int) -> None:
        on, count = ENDPOINTS[number % len(ENDPOINTS)], 0
        while not self.over.is_set():
            count += 1
            self.outcomes[on][await self.asked(on, f"n{number}-{count}")] += 1

    async def asked(self, on: str, nonce: str) -> str:
        order = Order(name=nonce, pause=self.dice.uniform(0.0, 0.02))
        try:
            async with asyncio.timeout(SILENCE):
                answer = await self.pool.call(on, order)
        except TimeoutError:
            return "silent"
        except Unavailable as error:
            return type(error).__name__
        return "right" if answer[0].text == nonce.upper() else "wrong"

    async def kill(self) -> None:
        """Kill one replica, and wait until another serves in its place."""
        await asyncio.sleep(self.dice.uniform(0.5, 2.0))
        at = self.dice.randrange(len(self.seats()))
        pid = self.seats()[at]["pid"]
        if pid is None:
            return
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while self.seats()[at]["pid"] in (pid, None):
            await asyncio.sleep(0.01)
        self.recoveries.append(time.monotonic() - start)


async def soak(kills: int, replicas: int, clients: int, seed: int) -> bool:
    start = time.monotonic()
    async with ReplicaPool(Worker, replicas=replicas) as pool:
        init = time.monotonic() - start
        run = Soak(pool, seed)
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(run.client(number))
            while len(run.recoveries) < kills:
                await run.kill()
            run.over.set()
        counts = {key: Wrapper(pool.runner).status()[key] for key in ("moved", "retried", "lost")}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    slowest = max(run.recoveries)
    for on, outcomes in run.outcomes.items():
        print(f"{on}: {dict(outcomes)}")
    print(f"{kills} kills, {counts}; slowest replacement {slowest:.2f} s, init {init:.2f} s; left behind: {children}")
    again, once = run.outcomes["/again"], run.outcomes["/once"]
    return (
        set(again) == {"right"}
        and set(once) <= {"right", "ReplicaDied"}
        and once["ReplicaDied"] <= 2 * kills
        and slowest <= init + 1.0
        and not children
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("kills", 200), ("replicas", 2), ("clients", 8), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--share", type=float, default=1.0, help="of the kills, so much: 0.05 to try it")
    options = parser.parse_args()
    kills = max(1, round(options.kills * options.share))
    held = asyncio.run(soak(kills, options.replicas, options.clients, options.seed))
    print("held" if held else "BROKEN")
    sys.exit(not held)


if __name__ == "__main__":
    main()
