"""When replicas are started again: bounds of the delays, and when a pool counts as failing, for any history."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_asgi.runners.pool._restarts import FIRST_DELAY, LONGEST_DELAY, LOOP_FAILURES, LOOP_SECONDS, Restarts

dice = st.floats(0.0, 1.0)
replicas = st.integers(0, 3)


class Event(NamedTuple):
    kind: str
    replica: int
    after: float
    dice: float


kinds = st.sampled_from(["failed", "died", "up", "worked"])
histories = st.lists(st.builds(Event, kinds, replicas, st.floats(0.0, 40.0), dice), max_size=60)


def played(history: list[Event]) -> tuple[Restarts, float, list[float]]:
    """What a history leaves: the state, the moment of its end, and the delays it gave."""
    restarts, now, delays = Restarts(), 0.0, []
    for event in history:
        now += event.after
        match event.kind:
            case "failed":
                delays.append(restarts.failed(event.replica, now, event.dice))
            case "died":
                delays.append(restarts.died(event.replica, event.dice))
            case "up":
                restarts.up()
            case _:
                restarts.worked(event.replica)
    return restarts, now, delays


@given(histories)
def test_every_delay_is_between_a_third_of_a_second_and_the_longest(history: list[Event]) -> None:
    assert all(FIRST_DELAY * 2 / 3 - 1e-9 <= delay <= LONGEST_DELAY for delay in played(history)[2])


@given(st.integers(1, 1000), dice)
def test_delays_double_up_to_the_cap_where_failures_are_far_apart(times: int, roll: float) -> None:
    restarts = Restarts()
    for number in range(times):
        delay = restarts.failed(0, number * LOOP_SECONDS, roll)
    assert delay == pytest.approx(min(FIRST_DELAY * 2.0 ** (times - 1), LONGEST_DELAY) * (1 - roll / 3))
    assert not restarts.failing


@given(st.lists(st.tuples(replicas, st.floats(0.0, LOOP_SECONDS / LOOP_FAILURES)), min_size=5, max_size=20))
def test_five_failures_within_a_minute_are_a_crash_loop_whichever_replicas_fail(
    failures: list[tuple[int, float]],
) -> None:
    restarts, now, failing = Restarts(), 0.0, []
    for replica, after in failures:
        now += after
        restarts.failed(replica, now, 0.0)
        failing.append(restarts.failing)
    assert failing == [number >= LOOP_FAILURES for number in range(1, len(failures) + 1)]


@given(histories)
def test_failing_takes_five_failures_in_a_minute_since_all_was_well(history: list[Event]) -> None:
    restarts, _, _ = played(history)
    moment, moments = 0.0, []
    for event in history:
        moment += event.after
        if event.kind == "failed":
            moments.append(moment)
    loops = [at for at, until in zip(moments, moments[LOOP_FAILURES - 1 :], strict=False) if until - at < LOOP_SECONDS]
    assert loops or not restarts.failing


@given(histories)
def test_a_failing_pool_waits_longest(history: list[Event]) -> None:
    restarts, now, _ = played(history)
    delay = restarts.failed(0, now, 0.0)
    assert delay == LONGEST_DELAY or not restarts.failing


@given(histories)
def test_a_replica_that_comes_up_ends_failing(history: list[Event]) -> None:
    restarts, _, _ = played(history)
    restarts.up()
    assert not restarts.failing


@given(histories, dice)
def test_a_replica_that_worked_starts_over_with_the_shortest_delay(history: list[Event], roll: float) -> None:
    restarts, now, _ = played(history)
    restarts.up()
    for replica in range(4):
        restarts.worked(replica)
    assert restarts.failed(0, now + LOOP_SECONDS, roll) == pytest.approx(FIRST_DELAY * (1 - roll / 3))


@given(histories, replicas, dice)
def test_a_death_at_work_costs_the_shortest_delay_always(history: list[Event], replica: int, roll: float) -> None:
    assert played(history)[0].died(replica, roll) == pytest.approx(FIRST_DELAY * (1 - roll / 3))


def test_one_replica_that_fails_is_started_less_than_ten_times_a_minute() -> None:
    restarts, now, starts = Restarts(), 0.0, 0
    while now < 60.0:
        starts += 1
        now += restarts.failed(0, now, jitter=1.0)  # the shortest delays there are
    assert starts < 10
    assert restarts.failing


def test_a_crash_loop_goes_on_where_a_replica_comes_up_and_answers_nothing() -> None:
    restarts = Restarts()
    for moment in range(LOOP_FAILURES):
        restarts.failed(0, float(moment), 0.0)
    restarts.up()
    restarts.failed(0, 10.0, 0.0)
    assert restarts.failing


def test_one_that_worked_after_failures_ends_the_loop() -> None:
    restarts = Restarts()
    for moment in range(LOOP_FAILURES):
        restarts.failed(0, float(moment), 0.0)
    restarts.up()
    restarts.worked(0)
    restarts.failed(0, 10.0, 0.0)
    assert not restarts.failing


def test_failures_longer_ago_than_a_minute_are_forgotten() -> None:
    restarts = Restarts()
    for moment in range(10_000):
        restarts.failed(0, moment * LOOP_SECONDS / 3, 0.0)
    assert len(restarts.recent) == 3


def test_a_pool_that_is_begun_anew_has_one_try_while_its_failures_are_recent() -> None:
    restarts = Restarts()
    for moment in range(LOOP_FAILURES):
        restarts.failed(0, moment, 0.0)
    restarts.reset()
    assert not restarts.failing
    restarts.failed(0, 10.0, 0.0)
    assert restarts.failing
    restarts.reset()
    restarts.failed(0, 10.0 + 2 * LOOP_SECONDS, 0.0)
    assert not restarts.failing
