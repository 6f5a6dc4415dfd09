"""What a Lifecycle does while a Runner ends: calls get their grace period, a cancellation hurries it and is raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from jina_asgi.concurrency.lifecycle import Lifecycle, SharedLifespan


async def run(life: Lifecycle, end: Callable[[], Awaitable[object]], body: Callable[[], Awaitable[object]]) -> None:
    with life.running():
        async with life.ending(end):
            life.state = "ready"
            await body()


async def nothing() -> None:
    return


async def test_its_states_come_in_order() -> None:
    life, states = Lifecycle(), list[str]()
    states.append(life.state)

    async def note() -> None:
        states.append(life.state)

    with life.running():
        await note()
        async with life.ending(note):
            life.state = "ready"
            await note()
    await note()
    assert states == ["not started", "loading", "ready", "draining", "stopped"]


async def test_calls_that_end_within_the_grace_period_are_waited_for() -> None:
    life, drained = Lifecycle(grace=30), list[bool]()

    async def end() -> None:
        asyncio.get_running_loop().call_soon(life.idle.set)
        drained.append(await life.drain(calls=1))

    await run(life, end, nothing)
    assert drained == [True]


async def test_calls_that_do_not_are_not() -> None:
    life, drained = Lifecycle(grace=0.01), list[bool]()

    async def end() -> None:
        drained.append(await life.drain(calls=1))

    await run(life, end, nothing)
    assert drained == [False]
    assert not life.is_hurried


async def test_a_cancelled_block_leaves_no_grace_period() -> None:
    life, drained = Lifecycle(grace=30), list[bool]()

    async def end() -> None:
        drained.append(await life.drain(calls=1))

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run(life, end, cancelled)
    assert (drained, life.is_hurried) == ([False], True)


async def test_a_cancellation_while_it_ends_is_raised_once_it_has_ended() -> None:
    life, ended, draining = Lifecycle(grace=30), list[bool](), asyncio.Event()
    work = asyncio.get_running_loop().create_future()

    async def end() -> None:
        draining.set()
        ended.append(await life.drain(calls=1))
        await life.finish(work)
        ended.append(work.done())

    task = asyncio.ensure_future(run(life, end, nothing))
    await draining.wait()
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, work.set_result, None)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ended, life.state) == ([False, True], "stopped")


async def test_a_hurried_end_gives_up_what_cannot_be_cancelled() -> None:
    life, given_up = Lifecycle(), list[bool]()
    work = asyncio.get_running_loop().create_future()

    async def end() -> None:
        life.is_hurried = True
        await life.finish(work)
        given_up.append(not work.done())

    await run(life, end, nothing)
    assert given_up == [True]


async def test_a_shared_lifespan_is_the_first_users_until_the_last_ones_end() -> None:
    happened: list[str] = []
    may_begin = asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await may_begin.wait()
        happened.append("began")
        try:
            yield
        except ValueError as error:
            happened.append(f"failed with {error}")
            raise
        finally:
            happened.append("ended")

    shared, may_leave = SharedLifespan(), {name: asyncio.Event() for name in "ab"}

    async def use(name: str, error: Exception | None = None) -> None:
        async with shared.entered(lifespan):
            happened.append(f"{name} entered")
            await may_leave[name].wait()
            if error is not None:
                raise error

    for _ in range(2):
        happened.clear()
        may_begin.clear()
        first, second = asyncio.create_task(use("a")), asyncio.create_task(use("b", ValueError("b's own")))
        await asyncio.sleep(0)
        may_begin.set()
        may_leave["a"].set()
        await first
        assert (happened, shared.users) == (["began", "a entered", "b entered"], 1)
        may_leave["b"].set()
        with pytest.raises(ValueError, match="b's own"):
            await second
        assert (happened[3:], shared.users) == (["failed with b's own", "ended"], 0)
        may_leave["a"].clear()
        may_leave["b"].clear()
    assert not shared.is_elsewhere
