"""The batch kernel: every item has one outcome, order and bounds are kept, for any interleaving of events."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jina_asgi.runners.batching._items import Batch, Bounds, FailureKind, Item, Lanes
from jina_asgi.runners.batching._kernel import BatchKernel

ENDS = {"answered", "failed", "expired", "cancelled", "abandoned"}
BOUNDS = [
    Bounds(4),
    Bounds(3, idempotent=True),
    Bounds(8, max_cost=10.0, idempotent=True),
    Bounds(4, window=1.0, gather="window"),
    Bounds(1),
    Bounds(4, lanes=Lanes()),
    Bounds(4, max_cost=6.0, lanes=Lanes(padded=True, max_padding=1.5, bucket_wait=0.5), idempotent=True),
    Bounds(4, lanes=Lanes(buckets=(1.0, 4.0), ageing=0.5, weights={"1": 3.0})),
    Bounds(4, window=1.0, gather="window", lanes=Lanes(weights={}, max_padding=1.5)),
]


class Driver:
    """A kernel, the batches it started, and a clock: what a runner would do, with every fault at hand."""

    def __init__(self, bounds: Bounds, slots: int = 1, ahead: int = 1) -> None:
        self.kernel, self.bounds, self.slots, self.ahead = BatchKernel(bounds, slots, ahead), bounds, slots, ahead
        self.now = 0.0
        self.items: list[Item] = []
        self.waiting: list[Batch] = []  # handed over
        self.running: list[tuple[Batch, list[Item]]] = []
        self.outcomes: Counter[Item] = Counter()
        self.calls: Counter[Item] = Counter()

    def push(self, key: int, cost: float = 1.0, deadline: float = math.inf) -> Item:
        item = Item(key, cost, self.now + deadline, tenant=str(len(self.items) % 3), priority=len(self.items) % 2)
        self.items.append(item)
        self.kernel.push(self.now, item)
        return item

    def step(self) -> float | None:
        decisions = self.kernel.step(self.now)
        self._end(decisions.expired, "expired")
        for batch in decisions.start:
            self._check_formed(batch)
            self.waiting.append(batch)
        assert len(self.waiting) + len(self.running) == self.kernel.running <= self.slots + self.ahead
        self._begin()
        return decisions.wake

    def _begin(self) -> None:
        """A free slot runs the next batch that was handed over; one that nobody waits for any more is skipped."""
        while self.waiting and len(self.running) < self.slots:
            batch = self.waiting.pop(0)
            items = self.kernel.began(batch, self.now)
            self._end([item for item in batch.items if item.state == "expired"], "expired")
            for item in items:
                self.calls[item] += 1
            if items:
                self.running.append((batch, items))
            else:
                assert self.kernel.done(batch) == []

    def _check_formed(self, batch: Batch) -> None:
        assert 0 < len(batch.items) <= self.bounds.max_items
        assert {item.key for item in batch.items} == {batch.key}
        lanes = self.bounds.lanes
        costs = [item.cost for item in batch.items]
        padded = lanes is not None and lanes.padded
        assert len(costs) == 1 or (max(costs) * len(costs) if padded else sum(costs)) <= self.bounds.max_cost
        if lanes is not None:
            assert len({lanes.bucket(cost) for cost in costs}) == 1 or any(i.state == "again" for i in batch.items)
            return
        orders = [(item.deadline, item.order) for item in batch.items]
        assert orders == sorted(orders)

    def finish(self, index: int = 0, fault: FailureKind | None = None) -> None:
        batch, ran = self.running.pop(index)
        if fault is None:
            self._end(self.kernel.done(batch), "answered")
        else:
            self._end(self.kernel.failed(batch, fault), "failed")
        assert all(item.state != "running" for item in ran)
        self._begin()

    def cancel(self, item: Item) -> None:
        running = {i for _, items in self.running for i in items}
        was = item.state
        never_ran = self.kernel.cancel(item)
        assert never_ran == (was in ("queued", "batched", "again"))
        if was in ("queued", "batched", "again"):
            self._end([item], "cancelled")
        elif was == "running":
            assert item in running
            self._end([item], "abandoned")

    def _end(self, items: list[Item], state: str) -> None:
        for item in items:
            self.outcomes[item] += 1
            assert (self.outcomes[item], item.state) == (1, state)

    def settle(self) -> None:
        """Everything that runs succeeds, until nothing is left; each item then has had exactly one outcome."""
        for _ in range(10 * len(self.items) + 10):
            wake = self.step()
            if self.running:
                self.finish()
            elif self.kernel.queued and wake is not None:
                self.now = max(self.now, wake)
            elif not self.kernel.queued and not self.waiting:
                break
        assert self.kernel.queued == self.kernel.running == 0
        assert all(self.outcomes[item] == 1 and item.state in ENDS for item in self.items)


class Machine(RuleBasedStateMachine):
    """Hypothesis looks for an order of events that breaks a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(Bounds(4, idempotent=True))

    @rule(bounds=st.sampled_from(BOUNDS), slots=st.integers(1, 3), ahead=st.integers(0, 1))
    @precondition(lambda self: not self.driver.items)
    def choose(self, bounds: Bounds, slots: int, ahead: int) -> None:
        self.driver = Driver(bounds, slots, ahead)

    @rule(key=st.integers(0, 2), cost=st.sampled_from([0.0, 1.0, 4.0]), late=st.sampled_from([math.inf, 0.0, 0.5, 3.0]))
    def push(self, key: int, cost: float, late: float) -> None:
        self.driver.push(key, cost, late)

    @rule()
    def step(self) -> None:
        self.driver.step()

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.driver.now += seconds

    @rule(pick=st.integers(0, 100), fault=st.sampled_from([None, None, *FailureKind]))
    @precondition(lambda self: self.driver.running)
    def finish(self, pick: int, fault: FailureKind | None) -> None:
        self.driver.finish(pick % len(self.driver.running), fault)

    @rule(pick=st.integers(0, 1000))
    @precondition(lambda self: self.driver.items)
    def cancel(self, pick: int) -> None:
        item = self.driver.items[pick % len(self.driver.items)]
        if item.state not in ENDS:
            self.driver.cancel(item)

    @invariant()
    def counts_agree(self) -> None:
        queued = [item for item in self.driver.items if item.state in ("queued", "again")]
        assert self.driver.kernel.queued == len(queued)
        assert 1 <= self.driver.kernel.cap <= self.driver.bounds.max_items

    def teardown(self) -> None:
        self.driver.settle()


TestKernel = Machine.TestCase
TestKernel.settings = settings(stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("seed", range(200))
def test_two_thousand_random_steps_leave_no_item_without_an_outcome(seed: int) -> None:
    choose = random.Random(seed)
    driver = Driver(choose.choice(BOUNDS), slots=choose.randint(1, 3), ahead=choose.randint(0, 1))
    for _ in range(2000):
        match choose.randrange(8):
            case 0 | 1 | 2:
                driver.push(choose.randrange(3), choose.choice([0.5, 1, 3]), choose.choice([math.inf] * 4 + [0.3, 2]))
            case 3 | 4:
                wake = driver.step()
                assert wake is None or wake > driver.now or driver.kernel.running >= driver.slots
            case 5 if driver.running:
                driver.finish(choose.randrange(len(driver.running)), choose.choice([None] * 6 + list(FailureKind)))
            case 6 if driver.items:
                item = choose.choice(driver.items[-20:])
                if item.state not in ENDS:
                    driver.cancel(item)
            case _:
                driver.now += choose.random()
    driver.settle()


def test_an_idle_slot_takes_a_lone_item_at_once() -> None:
    driver = Driver(Bounds(32, window=20.0))
    item = driver.push(0)
    driver.step()
    assert item.state == "running"


def test_a_window_gathers_until_it_is_full_or_closes() -> None:
    driver = Driver(Bounds(3, window=1.0, gather="window"))
    first, second = driver.push(0), driver.push(0)
    assert driver.step() == 1.0
    assert (first.state, second.state) == ("queued", "queued")
    driver.push(0)
    driver.step()
    assert [len(items) for _, items in driver.running] == [3]
    driver.finish()
    alone = driver.push(0)
    driver.now = 0.99
    driver.step()
    assert alone.state == "queued"
    driver.now = 1.0
    driver.step()
    assert alone.state == "running"


def test_only_full_batches_are_handed_over_ahead() -> None:
    driver = Driver(Bounds(2))
    driver.push(0)
    driver.step()
    driver.push(0)
    driver.step()
    assert driver.waiting == []
    driver.push(0)
    driver.step()
    assert [len(batch.items) for batch in driver.waiting] == [2]


def test_the_earliest_deadline_goes_first_and_the_late_are_dropped_unrun() -> None:
    driver = Driver(Bounds(1), ahead=0)
    driver.push(0)
    driver.step()
    patient, hurried, late = driver.push(0), driver.push(0, deadline=5.0), driver.push(0, deadline=1.0)
    driver.now = 2.0
    driver.step()
    assert late.state == "expired"
    driver.finish()
    driver.step()
    assert (hurried.state, patient.state) == ("running", "queued")
    assert driver.calls[late] == 0


@pytest.mark.parametrize("poisoned", range(32))
def test_one_poison_among_32_costs_at_most_eleven_more_calls_and_only_itself(poisoned: int) -> None:
    driver = Driver(Bounds(32, idempotent=True))
    items = [driver.push(0) for _ in range(32)]
    calls = 0
    driver.step()
    while driver.running:
        calls += 1
        hit = items[poisoned] in driver.running[0][1]
        driver.finish(fault=FailureKind.POISON if hit else None)
        driver.step()
    assert [item.state for item in items].count("failed") == 1
    assert items[poisoned].state == "failed"
    assert calls - 1 <= 2 * math.log2(32) + 1


def test_without_leave_to_run_again_a_failing_batch_fails_whole() -> None:
    driver = Driver(Bounds(4))
    items = [driver.push(0) for _ in range(4)]
    driver.step()
    driver.finish(fault=FailureKind.POISON)
    assert {item.state for item in items} == {"failed"}


def test_a_lack_of_memory_halves_the_cap_and_time_raises_it() -> None:
    driver = Driver(Bounds(8))
    items = [driver.push(0) for _ in range(8)]
    driver.step()
    driver.finish(fault=FailureKind.MEMORY)
    assert driver.kernel.cap == 4
    driver.settle()
    assert {item.state for item in items} == {"answered"}
    assert max(driver.calls.values()) == 2
    for _ in range(1000):
        driver.push(0)
    driver.settle()
    assert driver.kernel.cap == 8


def test_after_a_death_each_runs_alone_and_what_kills_twice_never_again() -> None:
    driver = Driver(Bounds(8, idempotent=True))
    items = [driver.push(0) for _ in range(8)]
    guilty, sizes = items[3], []
    driver.step()
    while driver.running:
        _, ran = driver.running[0]
        sizes.append(len(ran))
        driver.finish(fault=FailureKind.DEATH if guilty in ran else None)
        driver.step()
    assert sizes == [8] + [1] * 8
    assert [item.state for item in items] == ["failed" if item is guilty else "answered" for item in items]
    assert guilty.deaths == 2


def test_a_death_is_final_where_nothing_may_run_again() -> None:
    driver = Driver(Bounds(8))
    items = [driver.push(0) for _ in range(8)]
    driver.step()
    driver.finish(fault=FailureKind.DEATH)
    assert {item.state for item in items} == {"failed"}


def test_what_is_refused_before_anything_ran_is_halved_whatever_may_run_again() -> None:
    driver = Driver(Bounds(8))
    items = [driver.push(0) for _ in range(8)]
    driver.step()
    while driver.running:
        refused = items[5] in driver.running[0][1]
        driver.finish(fault=FailureKind.REFUSED if refused else None)
        driver.step()
    assert [item.state for item in items] == ["failed" if item is items[5] else "answered" for item in items]


def test_a_budget_bounds_a_batch_and_one_over_it_runs_alone() -> None:
    driver = Driver(replace(Bounds(10), max_cost=5.0))
    costs = [2.0, 2.0, 2.0, 9.0, 1.0]
    for cost in costs:
        driver.push(0, cost)
    formed = []
    while driver.kernel.queued or driver.running:
        driver.step()
        formed.append([item.cost for item in driver.running[0][1]])
        driver.finish()
    assert formed == [[2.0, 2.0], [2.0], [9.0], [1.0]]


def test_what_was_cancelled_after_its_batch_was_formed_is_not_run() -> None:
    driver = Driver(Bounds(2))
    for _ in range(2):
        driver.push(0)
    driver.step()
    stays, leaves = driver.push(0), driver.push(0)
    driver.step()
    driver.cancel(leaves)
    driver.finish()
    assert driver.calls[leaves] == 0
    assert stays.state == "running"


def test_what_has_not_begun_when_serving_ends_gets_an_error() -> None:
    driver = Driver(Bounds(2))
    items = [driver.push(0) for _ in range(3)]
    assert driver.kernel.drop() == items
    assert {item.state for item in items} == {"failed"}


def test_what_expired_after_its_batch_was_formed_is_not_run() -> None:
    driver = Driver(Bounds(1))
    driver.push(0)
    driver.step()
    late = driver.push(0, deadline=1.0)
    driver.step()
    assert late.state == "batched"
    driver.now = 2.0
    driver.finish()
    assert (late.state, driver.calls[late]) == ("expired", 0)
