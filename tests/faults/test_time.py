"""Time: blocked loops, and timers of what has ended long before them."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from jina_asgi import Context, DeadlineExceeded, Deployment, Executor, ReplicaPool, requests
from tests.doubles.replica_executors import Number, Order, Worker


class Sleeper(Executor):
    """In this process."""

    @requests(on="/again")
    async def again(self, doc: Order) -> Order:
        await asyncio.sleep(doc.pause)
        return doc

    @requests(on="/pid")
    async def pid(self, docs: list[Number]) -> list[Number]:
        return docs


def pooled() -> Deployment:
    return ReplicaPool(Worker, replicas=1)


def local() -> Deployment:
    return Deployment(Sleeper)


MAKES = [pytest.param(local, id="local"), pytest.param(pooled, id="pooled", marks=pytest.mark.processes)]


@pytest.mark.parametrize("make", MAKES)
async def test_a_deadline_that_passes_while_the_loop_is_blocked_ends_its_call_as_soon_as_it_is_not(make) -> None:
    """CL-03: by the user's own code, which nothing here can interrupt."""
    async with make() as deployment:
        context = Context(deadline=time.monotonic() + 0.2)
        call = asyncio.create_task(deployment.call("/again", Order(name="late", pause=60.0), context=context))
        await asyncio.sleep(0.05)  # it is on its way
        time.sleep(1.0)  # the fault itself
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await call
        assert time.monotonic() - start < 1.0


@pytest.mark.parametrize("make", MAKES)
async def test_calls_that_have_ended_leave_no_timers(make) -> None:
    """CL-05: each had an hour."""

    def timers() -> int:
        gc.collect()
        return sum(type(found) is asyncio.TimerHandle for found in gc.get_objects())

    async with make() as deployment:
        before = timers()
        for _ in range(200):
            contexts = [Context(deadline=time.monotonic() + 3600.0) for _ in range(50)]
            await asyncio.gather(*(deployment.call("/pid", Number(), context=context) for context in contexts))
        assert timers() - before < 500  # the loop sweeps out those that were cancelled a hundred at a time
