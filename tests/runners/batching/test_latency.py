"""A latency target, decided from what batches took."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jina_asgi.runners.batching._latency import BatchTimes, LatencyTarget


def learned(target: float, fixed: float, each: float, most: int = 128) -> LatencyTarget:
    found = LatencyTarget(target, most, 1)
    for size in (1, 4, 8, 16, 5, 2, 9):
        found.batch_ended(size, size, fixed + each * size)
    return found


@given(fixed=st.floats(0.0001, 1), each=st.floats(0.00001, 0.1), size=st.integers(1, 500))
def test_what_batches_take_is_learned(fixed: float, each: float, size: int) -> None:
    times = learned(1.0, fixed, each).times
    assert times.seconds_for(size) == pytest.approx(fixed + each * size, rel=0.01, abs=1e-6)


def test_of_loads_that_never_differ_more_takes_as_much_more() -> None:
    times = BatchTimes()
    for _ in range(10):
        times.measured(8, 8, 0.04)
    assert times.seconds_for(16) == pytest.approx(0.08)


@example(fixed=0.02, each=0.0015463163582973049)  # 16 is just within: sizes beside it are 3 % slower
@given(fixed=st.floats(0.001, 0.04), each=st.floats(0.0001, 0.01))
def test_a_batch_holds_what_keeps_the_target_after_another_like_it(fixed: float, each: float) -> None:
    found = learned(0.1, fixed, each)
    if 2 * (fixed + each) < found.aim:
        held = found.max_load
        assert fixed + each * held < found.aim
        answered = held / (fixed + each * held)
        half = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if 2 * (fixed + each * size) <= found.aim]
        assert answered >= max(size / (fixed + each * size) for size in half) * 0.98


def test_one_stalled_batch_does_not_turn_everything_away() -> None:
    found = learned(0.1, 0.01, 0.001)
    before = found.max_load
    found.batch_ended(8, 8, 30.0)
    for _ in range(20):
        found.batch_ended(8, 8, 0.018)
    assert found.max_load >= before / 2


def test_the_aim_falls_while_answers_are_late_and_recovers() -> None:
    found = learned(0.1, 0.01, 0.001)
    aim = found.aim
    for _ in range(5):
        found.answered(8, 8)
    assert 0.08 <= found.aim < aim
    for _ in range(1000):
        found.answered(0, 8)
    assert found.aim == 0.1


def test_one_of_a_hundred_late_leaves_the_aim_where_it_is() -> None:
    found = learned(0.1, 0.01, 0.001)
    aim = found.aim
    for _ in range(100):
        found.answered(1, 100)
    assert found.aim == pytest.approx(aim)


def test_nothing_is_refused_before_anything_is_known() -> None:
    found = LatencyTarget(0.1, 32, 1)
    assert (found.expected(1, 1000, 0), found.budget(1000), found.max_load) == (0.0, math.inf, math.inf)


def test_who_comes_behind_more_than_can_be_run_in_time_learns_how_late_it_would_be() -> None:
    found = learned(0.1, 0.01, 0.001, most=16)
    assert found.expected(1, 0, 0.0) == pytest.approx(0.011)
    assert found.expected(1, 160, 0.02) == pytest.approx(0.02 + 10 * 0.026 + 0.011)


def test_a_call_of_many_documents_is_allowed_what_its_batches_take() -> None:
    found = learned(0.1, 0.01, 0.001, most=16)
    assert found.budget(16) == 0.1
    assert found.budget(160) == pytest.approx(0.1 + 2 * 9 * 0.026)
