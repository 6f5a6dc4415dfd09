"""What a Lifecycle does while a Runner ends: calls get their grace period, a cancellation hurries it and is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jina_asgi.concurrency.lifecycle import Lifecycle


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
