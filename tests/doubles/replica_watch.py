"""A pool's replicas as a test sees and kills them, and what becomes of a call to one."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jina_asgi import ReplicaPool, Unavailable
from jina_asgi.runners.wrappers import Wrapper
from tests.doubles.replica_executors import Number, Order
from tests.doubles.rig import Journal

PATIENCE = 15.0


def status(pool: ReplicaPool) -> dict[str, Any]:
    return Wrapper(pool.runner).status()


def seats(pool: ReplicaPool) -> list[dict[str, Any]]:
    return list(status(pool)["replicas"].values())


def pids(pool: ReplicaPool) -> list[int]:
    return [seat["pid"] for seat in seats(pool) if seat["pid"] is not None]


async def pid_of(pool: ReplicaPool) -> int:
    """The process of a replica that answers."""
    number: int = (await pool.call("/pid", Number()))[0].value
    return number


async def until(condition: Callable[[], bool], within: float = PATIENCE) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)  # processes end and load: there is no event to wait on


async def ended(pool: ReplicaPool, pid: int) -> None:
    """Kill one of the pool's replicas, and wait until the pool knows."""
    kill(pid)
    await until(lambda: pid not in pids(pool))


async def all_up(pool: ReplicaPool) -> list[int]:
    await until(lambda: all(seat["state"] == "ready" for seat in seats(pool)))
    return pids(pool)


def noted(journal: Journal, note: str, within: float = PATIENCE) -> Awaitable[float]:
    return asyncio.to_thread(journal.until, note, within=within)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 of one that is gone."""
    with suppress(OSError), open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


def kill(*processes: int, by: int = signal.SIGKILL) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, by)


async def outcome(pool: ReplicaPool, on: str, order: Order) -> str:
    """What a call came to: "right", or the name of its error."""
    try:
        answer = (await pool.call(on, order))[0].text
    except Unavailable as error:
        return type(error).__name__
    return "right" if answer == order.name.upper() else f"wrong: {answer}"
