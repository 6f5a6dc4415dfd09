"""Admission on a clock of the test's own: bounds in calls and bytes, and when to come back."""

from __future__ import annotations

import pytest

from jina_asgi.errors import Overloaded
from jina_asgi.runners.admission import Admission, QueueTicket, RemoteQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refused(admission: Admission, size: int = 0) -> float:
    with pytest.raises(Overloaded) as raised:
        admission.admit(size)
    return raised.value.retry_after


def test_a_full_queue_refuses_until_a_place_is_given_back() -> None:
    admission = Admission(2, 1000)
    tickets = [admission.admit(1) for _ in range(2)]
    refused(admission)
    tickets[0].close()
    tickets[0].close()
    admission.admit(1)
    refused(admission)
    assert admission.status()["rejected"] == {"calls": 2, "bytes": 0}


def test_bytes_bound_the_queue_but_one_large_call_may_come_alone() -> None:
    admission = Admission(10, 1000)
    large = admission.admit(5000)
    refused(admission, 1)
    large.close()
    admission.admit(600)
    refused(admission, 401)
    admission.admit(400)
    assert admission.status()["pending_bytes"] == 1000
    assert admission.status()["rejected"] == {"calls": 0, "bytes": 2}


def test_before_anything_was_measured_it_says_one_second() -> None:
    admission = Admission(1, 1000)
    admission.admit(0)
    assert refused(admission) == 1.0


@pytest.mark.parametrize("cycles", [2, 3, 10, 100])
@pytest.mark.parametrize("partly", [0.0, 0.5, 0.99])
def test_it_says_how_long_the_queue_takes_to_drain_though_calls_end_in_bursts(cycles: int, partly: float) -> None:
    clock = Clock()
    admission = Admission(256, 1000, clock)
    tickets: list[QueueTicket] = [admission.admit(0) for _ in range(256)]
    for _ in range(cycles):
        clock.now += 0.164
        for _ in range(32):
            tickets.pop(0).close()
            clock.now += 0.0001
        tickets += [admission.admit(0) for _ in range(32)]
    clock.now += 0.164 * partly
    true = 256 / 32 * (0.164 + 0.0032)
    assert true * 0.75 < refused(admission) < true * 1.25


def test_idle_time_is_no_part_of_the_rate() -> None:
    clock = Clock()
    admission = Admission(10, 1000, clock)
    for _ in range(20):
        ticket = admission.admit(0)
        clock.now += 0.1
        ticket.close()
        clock.now += 3600.0
    for _ in range(10):
        admission.admit(0)
    assert refused(admission) == pytest.approx(1.0, rel=0.1)


def test_a_queue_that_stands_still_asks_for_ever_more_patience() -> None:
    clock = Clock()
    admission = Admission(4, 1000, clock)
    tickets = [admission.admit(0) for _ in range(4)]
    for ticket in tickets[:3]:
        clock.now += 0.1
        ticket.close()
        admission.admit(0)
    before = refused(admission)
    clock.now += 10.0
    assert refused(admission) > 5 * before
    clock.now += 10_000.0
    assert refused(admission) == 60.0


def test_a_queue_elsewhere_that_refused_is_not_asked_for_a_quarter_of_the_time_it_takes_to_empty() -> None:
    clock = Clock()
    elsewhere = RemoteQueue(clock)
    elsewhere.check()
    elsewhere.record_refusal(Overloaded("full", retry_after=2.0))
    clock.now += 0.4
    with pytest.raises(Overloaded) as raised:
        elsewhere.check()
    assert raised.value.retry_after == pytest.approx(1.6)
    clock.now += 0.2
    elsewhere.check()


def test_a_queue_elsewhere_counts_as_full_for_a_second_at_most() -> None:
    clock = Clock()
    elsewhere = RemoteQueue(clock)
    elsewhere.record_refusal(Overloaded("full", retry_after=60.0))
    clock.now += 1.1
    elsewhere.check()
