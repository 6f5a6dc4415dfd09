"""Servers with a pool started and stopped again and again, and crowds that race to start one pool host.

    python tests/faults/soak_starts.py --starts 200 --crowds 20 --servers 10

`--starts`: servers of four workers; every other one is told to end at some moment while it starts. `--crowds`: a hundred
processes that look for a host at once. `--servers`: sixteen web workers that do, each with its application. Nothing
may hang or be left behind; of hosts there is one, and each replica loads once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from jina_asgi.processes import host_socket
from jina_asgi.processes import instance as server_instance
from tests.doubles.pool_watch import HOST, command, place_key, processes
from tests.faults.soak_rig import SETTLED, Client, soak, soaked, told

CROWD = 100
WORKERS = 16
REPLICAS = 2
FORK = multiprocessing.get_context("fork")


async def starts(times: int, seed: int) -> bool:
    """GU-05, SO-03: a server ends in good order whenever it is told to, with nothing left."""
    dice, slowest, answered = random.Random(seed), 0.0, 0
    for number in range(times):
        early = number % 2 == 1
        async with soaked(replicas=1, wait=not early) as one:
            if early:
                await asyncio.sleep(dice.uniform(0.0, 3.0))  # the moment is what varies
            else:
                answered += await Client(one.server.port, "/again", keeps=False).ask(f"n{number}", 0.0) == "right"
            start = time.monotonic()
            await one.end()
            slowest = max(slowest, time.monotonic() - start)
            assert "Traceback" not in one.server.log, one.server.log
    held = answered == times - times // 2
    return told(f"{times} starts and stops", held, f"{answered} served, slowest end {slowest:.2f} s")


async def servers(times: int, seed: int) -> bool:
    """RP-16: whichever worker is first, there is one host, and each replica loads once."""
    for _ in range(times):
        async with soaked(workers=WORKERS, replicas=REPLICAS) as one:
            await one.until(lambda: one.told()["users"] == WORKERS)
            assert len(one.hosts()) == 1, f"{len(one.hosts())} hosts"
            assert one.loads() == REPLICAS, f"{one.loads()} replicas have loaded"
            await one.end()
    return told(f"{times} servers of {WORKERS} workers", True, f"each had one host and {REPLICAS} replicas")


async def crowds(times: int, seed: int) -> bool:
    """RP-16: of a hundred who find no host, one starts it."""
    with tempfile.TemporaryDirectory(prefix="soak-") as base:
        os.environ["XDG_RUNTIME_DIR"] = base
        for _ in range(times):
            crowd()
        left = [str(path) for path in Path(base).glob("*/*")]
    return told(f"{times} crowds of {CROWD}", not left, f"each found one host; left behind: {left}")


def crowd() -> None:
    """A hundred processes wait for one word; each must come to the same host, which ends with the last of them."""
    go, leave, come = FORK.Event(), FORK.Event(), FORK.Semaphore(0)
    server = FORK.Process(target=leave.wait)  # the life of the instance is its life
    server.start()
    assert server.pid is not None
    instance = server_instance.Instance(place_key(server.pid), server.pid, server_instance.started(server.pid))
    contenders = [FORK.Process(target=contend, args=(instance, go, come, leave)) for _ in range(CROWD)]
    for contender in contenders:
        contender.start()
    go.set()
    assert all(come.acquire(timeout=SETTLED) for _ in contenders)
    hosts = [pid for pid in processes(HOST) if instance.key in command(pid)]
    leave.set()
    for process in (server, *contenders):
        process.join()
        assert process.exitcode == 0
    assert len(hosts) == 1, f"{len(hosts)} hosts"
    until(lambda: not any(server_instance.alive(host, server_instance.started(host)) for host in hosts))


def contend(instance: server_instance.Instance, go: Any, come: Any, leave: Any) -> None:
    go.wait()
    with host_socket.connect(instance):
        come.release()
        leave.wait()


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLED
    while not what():
        assert time.monotonic() < deadline, f"not so within {SETTLED} s"
        time.sleep(0.01)  # processes that are not our children: there is no event to wait on


SOAKS = {"crowds": crowds, "servers": servers, "starts": starts}  # crowds are forked: before there are threads


if __name__ == "__main__":
    soak(__doc__, SOAKS)
