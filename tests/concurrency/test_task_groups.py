"""Lives that begin together and end in reverse, and work of which the first error ends the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jina_asgi.concurrency.lifecycle import Lifecycle
from jina_asgi.concurrency.task_groups import gather_or_cancel, lifespans
from jina_asgi.concurrency.tasks import cancel_and_wait


class Life:
    """A Runner's lifespan that says what happens to it."""

    def __init__(self, name: str, happened: list[str], fails: str = "", waits: asyncio.Event | None = None) -> None:
        self._name, self._happened, self._fails, self._waits = name, happened, fails, waits

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._fails == "begin":
            raise ValueError(f"{self._name} cannot begin")
        try:
            if self._waits is not None:
                await self._waits.wait()
            self._happened.append(f"{self._name} begun")
            yield
        except asyncio.CancelledError:
            self._happened.append(f"{self._name} hurried")
            raise
        finally:
            self._happened.append(f"{self._name} ended")
            if self._fails == "end":
                raise ValueError(f"{self._name} cannot end")


def drained(answer: bool) -> Any:
    async def drain() -> bool:
        return answer

    return drain


async def test_they_end_one_after_another_the_last_one_first() -> None:
    happened: list[str] = []
    life = Lifecycle()
    runners: Any = {name: Life(name, happened) for name in "ab"}
    async with lifespans(life, runners, drained(True)):
        happened.append("between")
    assert happened == ["a begun", "b begun", "between", "b ended", "a ended"]
    assert (life.state, life.is_hurried) == ("stopped", False)


async def test_where_something_still_runs_they_are_hurried() -> None:
    happened: list[str] = []
    runners: Any = {name: Life(name, happened) for name in "ab"}
    async with lifespans(Lifecycle(), runners, drained(False)):
        pass
    assert happened[2:] == ["b hurried", "b ended", "a hurried", "a ended"]


async def test_being_cancelled_hurries_them() -> None:
    happened: list[str] = []
    life, begun = Lifecycle(), asyncio.Event()
    runners: Any = {"a": Life("a", happened)}

    async def live() -> None:
        async with lifespans(life, runners, drained(True)):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(live())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert happened == ["a begun", "a hurried", "a ended"]
    assert life.is_hurried


async def test_one_that_cannot_begin_ends_those_that_have_and_those_that_still_do() -> None:
    happened: list[str] = []
    runners: Any = {
        "slow": Life("slow", happened, waits=asyncio.Event()),
        "good": Life("good", happened),
        "bad": Life("bad", happened, fails="begin"),
    }
    with pytest.raises(ValueError, match="bad cannot begin") as raised:
        async with lifespans(Lifecycle(), runners, drained(True)):
            happened.append("between")
    assert raised.value.__notes__ == ["in the node 'bad'"]
    assert "between" not in happened
    assert "slow ended" in happened


async def test_one_that_cannot_end_lets_the_others_and_is_raised() -> None:
    happened: list[str] = []
    runners: Any = {"a": Life("a", happened), "b": Life("b", happened, fails="end")}
    with pytest.raises(ValueError, match="b cannot end"):
        async with lifespans(Lifecycle(), runners, drained(True)):
            pass
    assert happened[-1] == "a ended"


async def test_results_come_in_order() -> None:
    async def answer(number: int) -> int:
        for _ in range(3 - number):
            await asyncio.sleep(0)
        return number

    assert await gather_or_cancel(answer(number) for number in range(3)) == [0, 1, 2]


async def test_the_first_error_ends_the_rest_and_waits_for_them() -> None:
    ended: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("rest")
            raise KeyError("nobody's")

    with pytest.raises(ValueError, match="first"):
        await gather_or_cancel([fail(), wait()])
    assert ended == ["rest"]


async def test_who_waits_for_the_cancelled_and_is_cancelled_leaves_when_they_have_ended() -> None:
    free, begun, ended = asyncio.Event(), asyncio.Event(), []

    async def slow() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await free.wait()
            ended.append("slow")

    task = asyncio.ensure_future(slow())
    await begun.wait()
    ending = asyncio.ensure_future(cancel_and_wait([task]))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.sleep(0)
    assert not ending.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert ended == ["slow"]
