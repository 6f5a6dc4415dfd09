"""Batching on an event loop: who rides together, who is told what, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jina_asgi.errors import (
    BatchFailed,
    DeadlineExceeded,
    DefinitionError,
    ExecutorError,
    ExecutorInputError,
    NotReady,
    ReplicaDied,
    TooLarge,
)
from jina_asgi.runners.batching._items import Bounds
from jina_asgi.runners.batching.batches import Batching
from jina_asgi.runners.batching.waiters import BatchMembers

KEY = "key"


class Doubler:
    """A function that waits at a gate, doubles, and remembers its batches; what is in `poison` it raises for."""

    def __init__(self, *poison: Any, error: type[BaseException] = ValueError, most: int = 1000) -> None:
        self.gate, self.called = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.batches: list[list[Any]] = []
        self.poison, self.error, self.most = set(poison), error, most

    async def __call__(self, members: BatchMembers) -> Sequence[Any]:
        values = members.take()
        self.batches.append(values)
        self.called.set()
        await self.gate.wait()
        if self.poison & set(values):
            raise self.error(f"met {sorted(self.poison & set(values))}")
        if len(values) > self.most:
            raise MemoryError
        return [value * 2 for value in values]

    @asynccontextmanager
    async def busy(self, batching: Batching) -> AsyncIterator[None]:
        """While one value, 0, runs; what is submitted meanwhile waits, and rides together afterwards."""
        self.gate.clear()
        self.called.clear()
        first = asyncio.ensure_future(batching.submit([0], KEY))
        await self.called.wait()
        yield
        self.gate.set()
        await asyncio.wait([first])


async def outcomes(batching: Batching, values: Sequence[Any], function: Doubler) -> list[Any]:
    """Each value submitted alone, all of them queued while something runs."""
    async with function.busy(batching):
        waiting = [asyncio.ensure_future(batching.submit([value], KEY)) for value in values]
        await turns()
    return await asyncio.gather(*waiting, return_exceptions=True)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_value_runs_at_once_though_a_window_of_batching_is_possible() -> None:
    batching = Batching(function := Doubler(), Bounds(32, window=60.0))
    assert await batching.submit([2], KEY) == [4]
    assert function.batches == [[2]]


async def test_what_comes_while_one_runs_rides_together() -> None:
    batching = Batching(function := Doubler(), Bounds(3))
    assert await outcomes(batching, [1, 2, 3, 4, 5], function) == [[2], [4], [6], [8], [10]]
    assert function.batches == [[0], [1, 2, 3], [4, 5]]


async def test_what_comes_in_one_turn_of_the_loop_rides_together() -> None:
    batching = Batching(function := Doubler(), Bounds(8))
    assert await asyncio.gather(*(batching.submit([n], KEY) for n in range(3))) == [[0], [2], [4]]
    assert function.batches == [[0, 1, 2]]


async def test_a_request_larger_than_a_batch_is_split_and_rejoined_in_order() -> None:
    batching = Batching(function := Doubler(), Bounds(3))
    small, large = batching.submit([1, 2], KEY), batching.submit(list(range(10, 17)), KEY)
    assert [*await asyncio.gather(small, large)] == [[2, 4], [20, 22, 24, 26, 28, 30, 32]]
    assert function.batches == [[1, 2, 10], [11, 12, 13], [14, 15, 16]]


async def test_an_empty_request_is_answered_without_a_call() -> None:
    batching = Batching(function := Doubler(), Bounds(3))
    assert await batching.submit([], KEY) == []
    assert function.batches == []


async def test_keys_never_mix() -> None:
    batching = Batching(function := Doubler(), Bounds(8))
    async with function.busy(batching):
        waiting = [asyncio.ensure_future(batching.submit([n], n % 2)) for n in range(1, 7)]
        await turns()
    assert await asyncio.gather(*waiting) == [[2], [4], [6], [8], [10], [12]]
    assert function.batches == [[0], [1, 3, 5], [2, 4, 6]]


async def test_a_window_gathers_and_its_timer_belongs_to_its_oldest_item() -> None:
    batching = Batching(function := Doubler(), Bounds(2, window=0.1, gather="window"))
    assert [*await asyncio.gather(batching.submit([1], KEY), batching.submit([2], KEY))] == [[2], [4]]
    begun = time.monotonic()
    assert await batching.submit([3], KEY) == [6]
    assert time.monotonic() - begun > 0.099
    assert function.batches == [[1, 2], [3]]


async def test_one_that_left_never_reaches_the_function_and_its_mates_are_untouched() -> None:
    batching = Batching(function := Doubler(), Bounds(8))
    async with function.busy(batching):
        waiting = [asyncio.ensure_future(batching.submit([n], KEY)) for n in (1, 2, 3)]
        await turns()
        waiting[1].cancel()
        await turns()
    assert [await waiting[0], await waiting[2]] == [[2], [6]]
    assert function.batches == [[0], [1, 3]]
    assert batching.status()["cancelled"] == 1


async def test_a_running_batch_is_cancelled_once_all_in_it_have_left() -> None:
    batching = Batching(function := Doubler(), Bounds(8))
    function.gate.clear()
    waiting = [asyncio.ensure_future(batching.submit([n], KEY)) for n in (1, 2)]
    await function.called.wait()
    waiting[0].cancel()
    await turns()
    assert batching.status()["running"] == 1
    waiting[1].cancel()
    await batching.drain()
    assert (batching.status()["running"], batching.status()["failed"]) == (0, 0)
    function.gate.set()
    assert await batching.submit([3], KEY) == [6]


async def test_a_batch_that_all_left_before_its_first_step_gives_its_slot_back() -> None:
    batching = Batching(function := Doubler(), Bounds(1), slots=2)
    function.gate.clear()
    first = asyncio.ensure_future(batching.submit([1], KEY))
    await function.called.wait()
    second = asyncio.ensure_future(batching.submit([2], KEY))
    await asyncio.sleep(0)  # it is queued, and its batch starts at the end of this turn
    second.cancel()
    first.cancel()
    await asyncio.wait_for(batching.drain(), 5)
    assert (batching.status()["running"], batching.status()["queued"]) == (0, 0)
    function.gate.set()
    answers = await asyncio.wait_for(asyncio.gather(batching.submit([3], KEY), batching.submit([4], KEY)), 5)
    assert list(answers) == [[6], [8]]


async def test_a_failed_request_whose_rest_had_not_begun_leaves_the_queue_to_others() -> None:
    batching = Batching(Doubler(5), Bounds(4), slots=1, ahead=1)
    with pytest.raises(ValueError, match="met"):
        await batching.submit([*range(1, 10)], KEY)
    assert await asyncio.wait_for(batching.submit([10], KEY), 5) == [20]


async def test_stopping_fails_calls_whose_batch_had_not_begun_its_first_step() -> None:
    batching = Batching(function := Doubler(), Bounds(1))
    waiting = asyncio.ensure_future(batching.submit([1], KEY))
    while not batching.status()["running"]:
        await asyncio.sleep(0)
    batching.stop()
    with pytest.raises(NotReady):
        await asyncio.wait_for(waiting, 5)
    assert function.batches == []


async def test_one_too_late_gets_an_error_though_the_others_of_its_batch_left() -> None:
    begin = asyncio.Event()

    async def waits(members: BatchMembers) -> Sequence[Any]:
        await begin.wait()
        members.take()
        await asyncio.Event().wait()
        return []

    batching = Batching(waits, Bounds(8))
    leaving = asyncio.ensure_future(batching.submit([1], KEY))
    late = asyncio.ensure_future(batching.submit([2], KEY, deadline=time.monotonic() + 0.01))
    await asyncio.sleep(0.02)
    begin.set()
    await turns()
    leaving.cancel()
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(late, 5)


async def test_nothing_runs_for_a_queue_that_all_have_left() -> None:
    batching = Batching(function := Doubler(), Bounds(8))
    async with function.busy(batching):
        waiting = [asyncio.ensure_future(batching.submit([n], KEY)) for n in (1, 2)]
        await turns()
        for task in waiting:
            task.cancel()
        await turns()
    await batching.drain()
    assert function.batches == [[0]]


async def test_late_calls_fail_before_they_run_and_urgent_ones_go_first() -> None:
    batching = Batching(function := Doubler(), Bounds(1))
    async with function.busy(batching):
        patient = asyncio.ensure_future(batching.submit([1], KEY))
        hurried = asyncio.ensure_future(batching.submit([2], KEY, deadline=time.monotonic() + 60))
        with pytest.raises(DeadlineExceeded):
            await batching.submit([3], KEY, deadline=time.monotonic() + 0.01)
    assert [*await asyncio.gather(patient, hurried)] == [[2], [4]]
    assert function.batches == [[0], [2], [1]]
    assert batching.status()["expired"] == 1


async def test_a_poisoned_value_fails_its_own_caller_where_running_again_is_allowed() -> None:
    batching = Batching(function := Doubler(13), Bounds(32, idempotent=True))
    answers = await outcomes(batching, range(1, 33), function)
    assert [type(answer) for answer in answers].count(list) == 31
    assert str(answers[12]) == "met [13]"
    assert len(function.batches) - 2 <= 11
    assert batching.status()["bisections"] == 5


async def test_without_leave_to_run_again_all_of_a_shared_batch_are_asked_to_try_again() -> None:
    batching = Batching(function := Doubler(2), Bounds(8))
    answers = await outcomes(batching, [1, 2, 3], function)
    assert {type(answer) for answer in answers} == {BatchFailed}
    assert len(set(map(id, answers))) == 3
    assert isinstance(answers[0].__cause__, ValueError)
    assert (answers[0].retriable, answers[0].raised, len(function.batches)) == (True, "ValueError", 2)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_call_alone_in_its_batch_gets_the_error_itself(idempotent: bool) -> None:
    batching = Batching(function := Doubler(2, error=ExecutorInputError), Bounds(8, idempotent=idempotent))
    with pytest.raises(ExecutorInputError, match="met"):
        await batching.submit([1, 2, 3], KEY)
    assert len(function.batches) == 1


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError, lambda _: RuntimeError("CUDA out of memory.")])
async def test_a_lack_of_memory_halves_the_batch_and_is_remembered(error: Any) -> None:
    async def hungry(members: BatchMembers) -> Sequence[Any]:
        values = members.take()
        sizes.append(len(values))
        if len(values) > 3:
            raise error("")
        return values

    sizes: list[int] = []
    batching = Batching(hungry, Bounds(8))
    assert await batching.submit([*range(16)], KEY) == [*range(16)]
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2]
    assert batching.status()["size_cap"] == 2


async def test_one_that_alone_needs_too_much_memory_fails_as_itself() -> None:
    batching = Batching(Doubler(1, error=MemoryError), Bounds(8))
    with pytest.raises(MemoryError):
        await batching.submit([1], KEY)


@pytest.mark.parametrize(
    ("answers", "got"),
    [([1], "got 1"), ([1, 2, 3, 4], "got 4"), (None, "NoneType"), ({1: 2, 3: 4, 5: 6}, "dict"), ("abc", "str")],
)
async def test_answers_of_a_wrong_number_or_kind_are_a_final_error_for_all(answers: Any, got: str) -> None:
    async def wrong(members: BatchMembers) -> Sequence[Any]:
        members.take()
        return answers

    batching = Batching(wrong, Bounds(8, idempotent=True), name="wrong")
    tasks = [batching.submit([n], KEY) for n in range(3)]
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert type(error) is ExecutorError
        assert "wrong: expected 3 answers" in str(error)
        assert got in str(error)
        assert not error.retriable


async def test_a_value_over_the_budget_is_refused_or_runs_alone() -> None:
    strict = Batching(Doubler(), Bounds(8, max_cost=5.0), oversized_alone=False)
    with pytest.raises(TooLarge, match="at most 5, got 6"):
        await strict.submit([1], KEY, [6.0])
    assert strict.status()["over_budget"] == 1
    lenient = Batching(function := Doubler(), Bounds(8, max_cost=5.0))
    assert await lenient.submit([1, 2, 3], KEY, [1.0, 6.0, 1.0]) == [2, 4, 6]
    assert function.batches == [[1], [2], [3]]


async def test_after_stopping_waiting_calls_may_retry_and_running_ones_may_have_run() -> None:
    batching = Batching(function := Doubler(), Bounds(1))
    function.gate.clear()
    waiting = [asyncio.ensure_future(batching.submit([n], KEY)) for n in (1, 2)]
    await function.called.wait()
    batching.stop()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ReplicaDied, NotReady]
    with pytest.raises(NotReady):
        await batching.submit([3], KEY)


async def test_draining_waits_for_what_is_queued_and_what_runs() -> None:
    batching = Batching(function := Doubler(), Bounds(1))
    await batching.drain()
    async with function.busy(batching):
        waiting = asyncio.ensure_future(batching.submit([1], KEY))
        await turns()
        draining = asyncio.ensure_future(batching.drain())
        await turns()
        assert not draining.done()
    await draining
    assert await waiting == [2]


async def test_several_may_wait_for_a_drain_and_one_that_leaves_disturbs_no_other() -> None:
    batching = Batching(function := Doubler(), Bounds(1))
    async with function.busy(batching):
        draining = [asyncio.ensure_future(batching.drain()) for _ in range(3)]
        await turns()
        draining[1].cancel()
    await asyncio.wait_for(asyncio.gather(draining[0], draining[2]), 5)


async def test_a_batch_runs_without_a_callers_context() -> None:
    caller = contextvars.ContextVar("caller", default="nobody")

    async def who(members: BatchMembers) -> Sequence[Any]:
        return [caller.get() for _ in members.take()]

    batching = Batching(who, Bounds(8))
    caller.set("alice")
    assert await batching.submit([1], KEY) == ["nobody"]


async def test_a_cancel_from_within_is_the_functions_failure() -> None:
    async def cancels(members: BatchMembers) -> Sequence[Any]:
        members.take()
        raise asyncio.CancelledError

    with pytest.raises(ExecutorError, match="cancelled from within"):
        await Batching(cancels, Bounds(8)).submit([1], KEY)


class Treacherous(list[Any]):
    """Has the right length, and raises when an answer is looked at."""

    def __getitem__(self, _: Any) -> Any:
        raise ZeroDivisionError


async def test_answers_that_cannot_be_looked_at_fail_their_batch() -> None:
    async def answers(members: BatchMembers) -> Sequence[Any]:
        return Treacherous(members.take())

    tasks = [Batching(answers, Bounds(8)).submit([n], KEY) for n in range(2)]
    errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(error) for error in errors] == [ZeroDivisionError, ZeroDivisionError]


def test_it_serves_one_event_loop_after_another_but_not_two_at_once() -> None:
    batching = Batching(function := Doubler(), Bounds(8))
    assert asyncio.run(batching.submit([1], KEY)) == [2]
    assert asyncio.run(batching.submit([2], KEY)) == [4]

    async def nested() -> None:
        async with function.busy(batching):
            with pytest.raises(DefinitionError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, batching.submit([1], KEY))

    asyncio.run(nested())


async def test_ten_thousand_queued_values_do_not_slow_a_step_down() -> None:
    """Were a step to look at all of them, this would take minutes."""
    batching = Batching(Doubler(), Bounds(2, window=3600.0))
    requests = [batching.submit([n], n % 5000) for n in range(10_000)]
    answers = await asyncio.wait_for(asyncio.gather(*requests), 60)
    assert answers == [[2 * n] for n in range(10_000)]


async def test_the_metrics_have_sizes_and_waits() -> None:
    batching = Batching(function := Doubler(), Bounds(4))
    await outcomes(batching, range(1, 6), function)
    status = batching.status()
    assert status["batch_sizes"] == {"1": 2, "4": 1}
    assert status["mean_batch_size"] == 2.0
    assert status["longest_wait_ms"] >= status["mean_wait_ms"] > 0
    assert (status["queued"], status["running"], status["size_cap"]) == (0, 0, None)
