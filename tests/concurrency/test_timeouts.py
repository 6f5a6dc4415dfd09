"""Others are waited for as long as this process runs: a pause of the machine is nobody's silence."""

from __future__ import annotations

import asyncio
import time

import pytest

from jina_asgi.concurrency.tasks import any_done


async def test_time_in_which_the_watcher_did_not_run_does_not_count() -> None:
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_later(0.05, time.sleep, 1.0)  # as if the machine had been paused, which no test can be
    loop.call_later(0.06, loop.call_later, 0.1, answer.set_result, None)
    assert await any_done([answer], 0.4)


async def test_silence_while_the_watcher_runs_is_noticed() -> None:
    silent = asyncio.get_running_loop().create_future()
    began = time.monotonic()
    assert not await any_done([silent], 0.2)
    assert 0.2 <= time.monotonic() - began < 2.0


async def test_a_watcher_that_is_always_late_gives_up_in_the_end() -> None:
    loop = asyncio.get_running_loop()
    silent = loop.create_future()

    def busy() -> None:
        time.sleep(0.02)
        if not silent.cancelled():
            loop.call_soon(busy)

    loop.call_soon(busy)
    assert not await any_done([silent], 0.008)
    silent.cancel()


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_what_is_done_already_is_not_missed(seconds: float) -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    assert await any_done([done], seconds)
