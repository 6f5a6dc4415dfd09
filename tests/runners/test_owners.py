"""Owners that leave: what a task, a stream or a replica holds is given back, at whatever step its owner goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from jina_asgi.errors import NotReady
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.bridge import BridgeRunner
from jina_asgi.runners.flow.runner import BackgroundNodes
from jina_asgi.runners.local.threads import ExecutorThreads
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.runners.pool.supervisor import ReplicaSupervisor


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Log:
    """A node that floats, of which only its queue is real; and the call that reaches it."""

    endpoint, kind = "/go", "batch"

    def __init__(self) -> None:
        self.queue = Admission(1, 1)

    def admit(self, endpoint: str) -> Any:
        return self.queue.admit(0)

    def endpoint_of(self, node: str) -> Any:
        return self

    def detached_context(self) -> None: ...

    async def run_node(self, node: str, context: Any) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("later", range(3))
async def test_what_floats_gives_its_place_back_at_whatever_step_it_is_ended(later: int) -> None:
    log: Any = Log()
    floating = BackgroundNodes({"log": log})
    floating.launch(log, "log")
    await turns(later)
    assert log.queue.status()["pending"] == 1
    await floating.close()
    assert log.queue.status()["pending"] == 0


ANY: Any = None


class Steps:
    """A Runner of one stream that says when it has been closed."""

    admit = call = lifespan = ANY
    endpoints = dict[str, Any]()
    closed = False

    async def stream(self, call: Any) -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            self.closed = True


@pytest.mark.parametrize("later", range(4))
async def test_a_stream_over_a_bridge_is_closed_though_its_reader_is_cancelled_while_it_closes_it(later: int) -> None:
    inner = Steps()
    steps = BridgeRunner(inner, asyncio.get_running_loop()).stream(ANY)
    await anext(steps)
    closing = asyncio.ensure_future(steps.aclose())
    await turns(later)
    closing.cancel()
    await asyncio.wait([closing])
    assert inner.closed


async def test_what_is_given_to_threads_that_have_ended_gets_an_error_at_once() -> None:
    async with ExecutorThreads("model") as threads:
        assert await threads.run(lambda: 1) == 1
    with pytest.raises(NotReady, match="is stopped"):
        await asyncio.wait_for(threads.run(lambda: 1), 5)
    with pytest.raises(NotReady, match="is stopped"):
        await asyncio.wait_for(threads.finish(lambda: 1), 5)


class Place:
    """A replica in name: it is started, asks to be replaced when told to, and counts how it ends."""

    unhealthy_reason, is_open, figures = "", True, dict[str, Any]()
    pid, device = None, ""

    def __init__(self, name: str) -> None:
        self.name, self.client = name, self
        self.gone, self.due = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def ping(self) -> None:
        await asyncio.sleep(0)

    async def ended(self) -> str:
        await self.gone.wait()
        return "is gone"

    async def leaves(self) -> None:
        await self.due.wait()

    async def stop(self) -> None:
        self.gone.set()

    async def kill(self, why: str) -> None:
        self.gone.set()

    end_hung = kill

    def resident(self) -> int:
        return 0


@pytest.mark.parametrize("later", range(8))
async def test_a_replica_that_was_replaced_ends_with_its_place_at_whatever_step_that_is_left(later: int) -> None:
    made: list[Place] = []

    def make(index: int) -> Any:
        made.append(Place(f"rep-{len(made)}"))
        return made[-1]

    seat = ReplicaSupervisor(0, make, Restarts(), heartbeat=60.0)
    keeping = asyncio.ensure_future(seat.supervise())
    while seat.handle is None:
        await asyncio.sleep(0)
    seat.handle.calls = 1
    seat.handle.is_idle.clear()  # it has a call that does not end
    await turns(10)
    made[0].due.set()
    while seat.handle.replica is made[0]:  # type: ignore[comparison-overlap]
        await asyncio.sleep(0)
    await turns(later)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert [place.gone.is_set() for place in made] == [True, True]


async def test_a_place_whose_keeping_fails_is_taken_anew() -> None:
    class Unmeasured(Place):
        def resident(self) -> int:
            raise OSError("no such process")

    made: list[Place] = []

    def make(index: int) -> Any:
        made.append((Place if made else Unmeasured)(f"rep-{len(made)}"))
        return made[-1]

    restarts = Restarts()
    seat = ReplicaSupervisor(0, make, restarts, heartbeat=60.0, max_rss=1 << 40)
    keeping = asyncio.ensure_future(seat.supervise())
    async with asyncio.timeout(10):
        while seat.handle is None:
            await asyncio.sleep(0.01)
    assert seat.handle.replica is made[1]  # type: ignore[comparison-overlap]
    keeping.cancel()
    await asyncio.wait([keeping])
