"""Admission control: limits pending calls and bytes before a body is read."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from jina_asgi.errors import Overloaded
from jina_asgi.types import Runner, Ticket

_SPAN = 3.0  # seconds of work over which the rate of completions is measured
_BURST = 0.02  # seconds within which completions are one burst, as those of a batch are
_CLOSED = 1.0  # the most seconds that another process's queue counts as full
_LEAST, _MOST = 0.1, 60.0  # bounds of `retry_after` in seconds


class Admission:
    """Admits at most `max_queue` calls and `max_bytes` bytes at once, waiting or running.

    `retry_after` is the pending calls over the measured completion rate, between a tenth of a second and a minute.
    """

    __slots__ = ("_bytes", "_max_bytes", "_max_queue", "_pending", "_rate", "_rejected", "_tenants")

    def __init__(self, max_queue: int, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_queue, self._max_bytes, self._pending, self._bytes = max_queue, max_bytes, 0, 0
        self._rejected: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._rate = _CompletionRate(clock)

    def admit(self, size: int) -> QueueTicket:
        """Take a place for a call of `size` bytes; a negative size counts as 0, which is not known.

        Raises:
            Overloaded: the queue is full; a call larger than the limit is admitted if it is alone.
        """
        size = max(size, 0)
        if self._pending >= self._max_queue:
            raise self._refusal("calls")
        if self._pending and self._bytes + size > self._max_bytes:
            raise self._refusal("bytes")
        if not self._pending:
            self._rate.resume()
        self._pending += 1
        self._bytes += size
        return QueueTicket(self, size)

    def enter(self, tenant: str, weight: float) -> None:
        """Count a call of a tenant, until `exit`.

        A tenant may have as many calls as places are free, times its weight, so that a flood leaves room for others.

        Raises:
            Overloaded: this tenant is at its limit; others are admitted.
        """
        most = max(1.0, weight * (self._max_queue - self._pending))
        had = self._tenants.get(tenant, 0)
        if had >= most:
            raise self._refusal("tenant", f"this tenant has {had} calls in the queue, and may have {most:.0f} just now")
        self._tenants[tenant] = had + 1

    def exit(self, tenant: str) -> None:
        """End a call of a tenant."""
        self._tenants[tenant] -= 1
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    @property
    def retry_after(self) -> float:
        """The seconds until the pending calls should be done; 1.0 before any measurement."""
        rate = self._rate.rate()
        return min(max(_LEAST, self._pending / rate), _MOST) if rate else 1.0

    def status(self) -> dict[str, Any]:
        """Return the metrics for `/-/status`."""
        return {
            "pending": self._pending,
            "pending_bytes": self._bytes,
            "rejected": {**dict.fromkeys(("calls", "bytes"), 0), **self._rejected},
            "retry_after": round(self.retry_after, 3),
        }

    def _refusal(self, reason: str, why: str = "") -> Overloaded:
        self._rejected[reason] += 1
        return Overloaded(
            f"{why or f'the queue is full ({self._pending} calls, {self._bytes} bytes)'}; try again later",
            retry_after=self.retry_after,
            server_wide=not why,
        )


def both_queues(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The status of two queues as one: a call takes a place in one of them."""
    return {
        "pending": one["pending"] + other["pending"],
        "pending_bytes": one["pending_bytes"] + other["pending_bytes"],
        "rejected": {
            why: one["rejected"].get(why, 0) + other["rejected"].get(why, 0)
            for why in {**one["rejected"], **other["rejected"]}
        },
        "retry_after": max(one["retry_after"], other["retry_after"]),
    }


class RemoteQueue:
    """Tracks another process's queue by its refusals, so that no body is sent to it while it must be full.

    It counts as full for a quarter of the `retry_after` of its last refusal, at most `_CLOSED` seconds.
    """

    __slots__ = ("_clock", "_refused_at", "_retry_after")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._refused_at, self._retry_after = clock, 0.0, 0.0

    def record_refusal(self, error: Overloaded) -> None:
        """Record that it refused a call."""
        self._refused_at, self._retry_after = self._clock(), error.retry_after or 0.0

    def check(self) -> None:
        """Return if a call may be accepted.

        Raises:
            Overloaded: it counts as full.
        """
        since = self._clock() - self._refused_at
        if since < min(self._retry_after / 4, _CLOSED):
            raise Overloaded("the queue is full; try again later", retry_after=self._retry_after - since)


class _CompletionRate:
    """Measures the rate of completions in bursts, as batches end: completions after the first burst over the time since.

    The clock stops while no call is pending.
    """

    __slots__ = ("_begun", "_bursts", "_clock", "_paused", "_worked")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._begun, self._worked, self._paused = clock, 0.0, 0.0, True
        self._bursts: deque[list[float]] = deque()  # [begun, last, count]

    def resume(self) -> None:
        self._begun, self._paused = self._clock(), False

    def _now(self) -> float:
        return self._worked if self._paused else self._worked + self._clock() - self._begun

    def count(self, *, last: bool) -> None:
        """Count a completion; `last`: no other call is pending."""
        bursts = self._bursts
        now = self._worked + self._clock() - self._begun
        if last:
            self._worked, self._paused = now, True
        if bursts and now - bursts[-1][0] < _BURST:
            bursts[-1][1] = now
            bursts[-1][2] += 1
            return
        bursts.append([now, now, 1])
        while len(bursts) > 3 and now - bursts[0][0] > _SPAN:
            bursts.popleft()

    def rate(self) -> float:
        """Return completions per second; 0 before any measurement. It falls when the next burst is late."""
        if not self._bursts:
            return 0.0
        first, last, now = self._bursts[0], self._bursts[-1], self._now()
        if len(self._bursts) == 1:
            return first[2] / max(first[1], _BURST)
        span, count = last[0] - first[0], sum(burst[2] for burst in self._bursts) - first[2]
        gap = span / (len(self._bursts) - 1)
        return count / (span + max(0.0, now - last[0] - 2 * gap))


class QueueTicket(Ticket, msgspec.Struct, eq=False):
    """The place of one call in the queue."""

    _admission: Admission | None
    _size: int

    def close(self) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._pending -= 1
            admission._bytes -= self._size
            admission._rate.count(last=not admission._pending)


class Tickets(Ticket, msgspec.Struct, eq=False):
    """Places in several queues, freed together."""

    _tickets: list[Ticket]

    def close(self) -> None:
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            ticket.close()


def admit_all(runners: Iterable[Runner], endpoint: str, size: int) -> Ticket:
    """Take a place in the queue of every Runner, or in none if one refuses."""
    tickets = list[Ticket]()
    try:
        for runner in runners:
            tickets.append(runner.admit(endpoint, size=size))
    except BaseException:
        Tickets(tickets).close()
        raise
    return Tickets(tickets)
