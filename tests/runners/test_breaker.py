"""A breaker opens after five failures in a row, and lets one call try after pauses that double."""

from __future__ import annotations

import pytest

from jina_asgi.runners.breaker import Breaker


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(5):
        breaker.begin_try()
        breaker.failed(at)
    return breaker


def test_four_failures_and_an_answer_leave_it_closed() -> None:
    breaker = Breaker()
    for _ in range(20):
        for _ in range(4):
            breaker.failed(0.0)
        breaker.succeeded()
    assert (breaker.is_open, breaker.wait(0.0)) == (False, 0.0)


def test_the_fifth_opens_it_for_half_a_second() -> None:
    breaker = opened(at=10.0)
    assert [0.5, 0.25, 0.0] == [breaker.wait(now) for now in (10.0, 10.25, 10.5)]


def test_one_call_at_a_time_tries() -> None:
    breaker = opened()
    assert breaker.wait(0.6) == 0.0
    assert breaker.begin_try()
    assert breaker.wait(0.6) > 0.0
    breaker.given_up()
    assert breaker.wait(0.6) == 0.0


def test_each_try_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now, pauses = opened(), 0.0, list[float]()
    for _ in range(9):
        now += breaker.wait(now)
        breaker.begin_try()
        breaker.failed(now)
        pauses.append(breaker.wait(now))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]


def test_calls_that_ran_when_it_opened_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    for _ in range(20):
        breaker.failed(0.1)
    assert breaker.wait(0.1) == pytest.approx(0.4)
    breaker.begin_try()
    breaker.failed(0.5)
    assert breaker.wait(0.5) == 1.0


def test_an_answer_closes_it() -> None:
    breaker = opened()
    breaker.begin_try()
    breaker.succeeded()
    assert (breaker.is_open, breaker.wait(0.5), breaker.begin_try()) == (False, 0.0, False)
