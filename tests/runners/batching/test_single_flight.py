"""Values that are equal and asked at once are run once; each caller has an outcome of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from jina_asgi.errors import BatchFailed, DeadlineExceeded
from jina_asgi.runners.batching._items import Bounds, Lanes
from jina_asgi.runners.batching.batches import Batching
from jina_asgi.runners.batching.waiters import BatchMembers

KEY = "key"


class Gated:
    """Answers with each value twice, once its gate is open; raises for what is poison."""

    def __init__(self, poison: str = "") -> None:
        self.gate, self.called = asyncio.Event(), asyncio.Event()
        self.batches: list[list[str]] = []
        self.cancelled = 0
        self.poison = poison

    async def __call__(self, members: BatchMembers) -> Sequence[str]:
        values = members.take()
        self.batches.append(values)
        self.called.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.poison in values:
            raise ValueError("poisoned")
        return [value * 2 for value in values]


def of(function: Gated, **bounds: Any) -> Batching:
    return Batching(
        function, Bounds(8, lanes=Lanes(), **bounds), copy_answer=lambda asked, answer, own: f"{answer} for {own}"
    )


def ask(batching: Batching, *values: str, timeout: float | None = None) -> asyncio.Task[list[Any]]:
    """What a value is called up to its last letter is its input: "xa" and "xb" are equal."""
    deadline = None if timeout is None else time.monotonic() + timeout
    inputs = [value[:-1] for value in values]
    return asyncio.ensure_future(batching.submit(values, KEY, deadline=deadline, inputs=inputs))


async def test_a_hundred_equal_values_are_run_once_and_each_has_an_answer_of_its_own() -> None:
    function = Gated()
    batching = of(function)
    asked = [ask(batching, f"x{chr(97 + number % 26)}") for number in range(100)]
    await function.called.wait()
    asked.append(ask(batching, "x!"))
    function.gate.set()
    found = [answer for [answer] in await asyncio.gather(*asked)]
    assert function.batches == [["xa"]]
    assert found[0] == "xaxa"
    assert found[1] == "xaxa for xb"
    assert found[-1] == "xaxa for x!"
    assert batching.status()["joined"] == 100


async def test_what_is_over_is_run_anew() -> None:
    function = Gated()
    batching = of(function)
    function.gate.set()
    await ask(batching, "xa")
    await ask(batching, "xb")
    assert function.batches == [["xa"], ["xb"]]


async def test_equal_values_of_one_call_are_run_once_too() -> None:
    function = Gated()
    function.gate.set()
    assert await ask(of(function), "xa", "ya", "xb") == ["xaxa", "yaya", "xaxa for xb"]
    assert function.batches == [["xa", "ya"]]


async def test_the_first_may_leave_and_the_others_are_answered() -> None:
    function = Gated()
    batching = of(function)
    first, second, third = ask(batching, "xa"), ask(batching, "xb"), ask(batching, "xc")
    await function.called.wait()
    first.cancel()
    await asyncio.wait([first])
    function.gate.set()
    assert (await second, await third) == (["xaxa for xb"], ["xaxa for xc"])
    assert (first.cancelled(), function.cancelled) == (True, 0)


async def test_it_is_cancelled_when_the_last_who_waits_leaves_and_run_anew_for_who_comes_then() -> None:
    function = Gated()
    batching = of(function)
    asked = [ask(batching, "xa"), ask(batching, "xb")]
    await function.called.wait()
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)
    function.called.clear()
    anew = ask(batching, "xc")
    await function.called.wait()
    function.gate.set()
    assert await anew == ["xcxc"]
    assert (function.cancelled, function.batches) == (1, [["xa"], ["xc"]])


async def test_what_is_queued_never_runs_when_all_have_left() -> None:
    function = Gated()
    batching = of(function)
    busy = ask(batching, "0a")
    await function.called.wait()
    asked = [ask(batching, "xa"), ask(batching, "xb")]
    await asyncio.sleep(0)
    for one in asked:
        one.cancel()
    function.gate.set()
    await asyncio.wait([busy, *asked])
    assert function.batches == [["0a"]]


async def test_an_error_reaches_all_who_wait_each_as_one_of_their_own() -> None:
    function = Gated(poison="xa")
    batching = of(function)
    asked = [ask(batching, "xa"), ask(batching, "xb")]
    await function.called.wait()
    function.gate.set()
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(error) for error in errors] == ["poisoned", "poisoned"]
    assert errors[0] is not errors[1]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_poison_is_found_among_others_and_reported_to_all_who_asked_for_it(idempotent: bool) -> None:
    function = Gated(poison="xa")
    batching = of(function, idempotent=idempotent)
    busy = ask(batching, "0a")
    await function.called.wait()
    asked = [ask(batching, value) for value in ("xa", "ya", "xb", "za")]
    await asyncio.sleep(0)
    function.gate.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    await busy
    if idempotent:
        assert [type(one) for one in found] == [ValueError, list, ValueError, list]
    else:
        assert {type(one) for one in found} == {BatchFailed}


async def test_the_firsts_deadline_is_not_that_of_who_waits_longer() -> None:
    function = Gated()
    batching = of(function)
    busy = ask(batching, "0a")
    await function.called.wait()
    hurried, patient = ask(batching, "xa", timeout=0.05), ask(batching, "xb")
    with pytest.raises(DeadlineExceeded):
        await hurried
    function.gate.set()
    assert await patient == ["xaxa for xb"]
    await busy


async def test_who_waits_longer_than_what_runs_may_take_has_a_run_of_its_own() -> None:
    function = Gated()
    batching = of(function)
    hurried = ask(batching, "xa", timeout=0.5)
    await function.called.wait()
    patient = ask(batching, "xb")
    as_hurried = ask(batching, "xc", timeout=0.2)
    await asyncio.sleep(0)
    function.gate.set()
    assert [await one for one in (hurried, patient, as_hurried)] == [["xaxa"], ["xbxb"], ["xbxb for xc"]]
    assert function.batches == [["xa"], ["xb"]]


async def test_other_keys_are_other_values() -> None:
    function = Gated()
    batching = of(function)
    function.gate.set()
    await asyncio.gather(batching.submit(["xa"], "one", inputs=["x"]), batching.submit(["xb"], "other", inputs=["x"]))
    assert sorted(function.batches) == [["xa"], ["xb"]]


async def test_an_answer_that_cannot_be_copied_fails_who_needs_the_copy_alone() -> None:
    function = Gated()

    def uncopied(*_: Any) -> Any:
        raise TypeError("a lock")

    batching = Batching(function, Bounds(8, lanes=Lanes()), copy_answer=uncopied)
    asked = [ask(batching, "xa"), ask(batching, "xb")]
    function.gate.set()
    first, second = await asyncio.gather(*asked, return_exceptions=True)
    assert first == ["xaxa"]
    assert "could not be copied for another caller" in str(second)


async def test_one_who_waits_for_a_value_of_a_call_with_poison_in_it_may_ask_again() -> None:
    function = Gated("poison")
    batching = of(function)
    first = ask(batching, "poison", "xa")
    await function.called.wait()
    joined = ask(batching, "xb")
    await asyncio.sleep(0)
    function.gate.set()
    errors = await asyncio.gather(first, joined, return_exceptions=True)
    assert [type(error) for error in errors] == [ValueError, BatchFailed]
    assert batching.status()["joined"] == 1
