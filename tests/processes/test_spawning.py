"""Processes that an Executor's code starts in a replica are ordinary ones: what befalls them befalls nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from jina_asgi import Executor, ReplicaDied, ReplicaPool, requests
from tests.doubles.replica_executors import Number, Parent
from tests.doubles.replica_watch import pids

pytestmark = pytest.mark.processes

#: Those that end a process: `nohup` has the first ignored by all that it starts.
SIGNALS = [n for n in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1) if signal.getsignal(n) != signal.SIG_IGN]


async def test_children_end_by_what_ends_them_and_the_replica_lives() -> None:
    async with ReplicaPool(Parent, replicas=1) as pool:
        before = pids(pool)
        for on in ("/forked", "/forked_async", "/run", "/run_async"):
            for number in SIGNALS:
                [ended] = await pool.call(on, Number(value=number))
                assert -number == ended.value, on
        [interrupted] = await pool.call("/run", Number(value=signal.SIGINT))
        assert -signal.SIGINT == interrupted.value
        [wrapped] = await pool.call("/forked_wrapped", Number(value=signal.SIGTERM))
        assert -signal.SIGTERM == wrapped.value
        [counted] = await pool.call("/pool", Number(value=10))
        assert 45 == counted.value
        [inherited] = await pool.call("/inherited", Number())
        assert 0 == inherited.value
        assert before == pids(pool)


async def test_a_replica_that_dies_and_leaves_a_child_behind_is_seen_to_be_dead() -> None:
    async with ReplicaPool(Parent, replicas=1, heartbeat=15.0) as pool, asyncio.timeout(10.0):
        with pytest.raises(ReplicaDied):
            await pool.call("/leave_behind", Number())


#: What the code of a child does that comes back out of an Executor's method, and the exit code that its parent sees.
WAYS = {"returns": 1, "fails": 1, "exits": 0, "exits with 3": 3, "exits with words": 1}


class Forking(Executor):
    """Forks in each kind of method; the parent answers with the child's exit code."""

    def forked(self, doc: Number) -> Number:
        child = os.fork()
        if child:
            return Number(value=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        way = list(WAYS)[doc.value]
        if way == "fails":
            raise ValueError("of the child")
        if way != "returns":
            raise SystemExit({"exits": None, "exits with 3": 3}.get(way, "bye"))
        return doc

    @requests(on="/sync")
    def sync(self, doc: Number) -> Number:
        return self.forked(doc)

    @requests(on="/async")
    async def asynchronous(self, doc: Number) -> Number:
        return self.forked(doc)

    @requests(on="/sync_batch")
    def batch(self, docs: list[Number]) -> list[Number]:
        return [self.forked(doc) for doc in docs]

    @requests(on="/async_batch")
    async def async_batch(self, docs: list[Number]) -> list[Number]:
        return [self.forked(doc) for doc in docs]

    @requests(on="/stream")
    def stream(self, doc: Number) -> Iterator[Number]:
        yield self.forked(doc)

    @requests(on="/async_stream")
    async def async_stream(self, doc: Number) -> AsyncIterator[Number]:
        yield self.forked(doc)

    @requests(on="/task")
    async def in_a_task(self, doc: Number) -> Number:
        ended = asyncio.get_running_loop().create_future()

        async def fork() -> None:
            ended.set_result(self.forked(doc))

        self.task = asyncio.create_task(fork())
        return await ended  # type: ignore[no-any-return]


BATCHED = {name: {"preferred_batch_size": 2} for name in ("/sync_batch", "/async_batch")}


@pytest.mark.parametrize("on", ["/sync", "/async", "/sync_batch", "/async_batch", "/stream", "/async_stream"])
async def test_a_forked_child_that_comes_out_of_a_method_ends_alone(on: str) -> None:
    async with ReplicaPool(Forking, replicas=1, uses_dynamic_batching=BATCHED) as pool, asyncio.timeout(60.0):
        before = pids(pool)
        for number, code in enumerate(WAYS.values()):
            if "stream" in on:
                answers = [doc async for doc in pool.stream(on, Number(value=number))]
            else:
                answers = list(await pool.call(on, Number(value=number)))
            assert [code] == [answer.value for answer in answers]
        assert before == pids(pool)


async def test_a_forked_child_that_exits_in_a_task_of_its_own_ends_alone() -> None:
    async with ReplicaPool(Forking, replicas=1) as pool, asyncio.timeout(60.0):
        before = pids(pool)
        for number, (way, code) in enumerate(WAYS.items()):
            if "exits" in way:
                [answer] = await pool.call("/task", Number(value=number))
                assert code == answer.value
        assert before == pids(pool)


IN_PROCESS = """
import asyncio
from jina_asgi import Deployment
from tests.processes.test_spawning import WAYS, Forking, Number

async def main():
    async with Deployment(Forking) as served:
        for on in ("/sync", "/async"):
            for number, code in enumerate(WAYS.values()):
                [answer] = await served.call(on, Number(value=number))
                assert answer.value == code, (on, number, answer)
    print("one process came to the end", flush=True)

asyncio.run(main())
"""


def test_a_forked_child_that_comes_out_of_a_method_ends_alone_in_process() -> None:
    ran = subprocess.run([sys.executable, "-c", IN_PROCESS], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "one process came to the end\n") == (ran.returncode, ran.stdout), ran.stderr
    assert "expected os._exit in the child" in ran.stderr
    assert "ValueError: of the child" in ran.stderr
