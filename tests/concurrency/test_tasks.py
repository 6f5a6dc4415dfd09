"""Tasks whose end is always dealt with: however they end, also before their first step."""

from __future__ import annotations

import asyncio
import logging

import pytest

from jina_asgi.concurrency.tasks import cancel_and_wait, concurrent_tasks, log_failure, start_task, wait_until_done


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(3))
async def test_the_end_of_a_task_is_reported_at_whatever_step_it_is_cancelled(turns: int) -> None:
    over: list[asyncio.Task[None]] = []
    kept: set[asyncio.Task[None]] = set()
    task = start_task(forever(), over.append, kept=kept)
    assert kept == {task}
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (over, kept) == ([task], set())


async def test_what_runs_beside_a_block_has_ended_when_the_block_has() -> None:
    steps: list[str] = []

    async def slow() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned")

    async with concurrent_tasks(slow(), forever()) as tasks:
        await asyncio.sleep(0)
    assert steps == ["cleaned"]
    assert all(task.cancelled() for task in tasks)


async def test_a_task_is_finished_though_the_one_who_waits_is_cancelled_again_and_again() -> None:
    let = asyncio.Event()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            await let.wait()

    task = start_task(stubborn(), log_failure("a test"))
    await asyncio.sleep(0)
    waiting = start_task(cancel_and_wait([task]), log_failure("a test"))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    let.set()
    await asyncio.wait([waiting])
    assert (task.cancelled(), waiting.cancelled()) == (True, True)


async def test_waiting_reports_its_own_cancelling_and_hurries_once_for_each() -> None:
    let, hurried = asyncio.Event(), list[str]()
    task = start_task(let.wait(), log_failure("a test"))

    async def wait() -> bool:
        return await wait_until_done([task], hurry=lambda: hurried.append("now")) is not None

    waiting = start_task(wait(), log_failure("a test"))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    let.set()
    assert await waiting is True
    assert hurried == ["now", "now"]


async def test_an_error_that_no_one_reads_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("broken")

    with caplog.at_level(logging.ERROR, "jina_asgi"):
        await asyncio.wait([start_task(fails(), log_failure("a test"))])
    assert [record.getMessage() for record in caplog.records] == ["a test failed"]
