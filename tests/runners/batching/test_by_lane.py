"""What the options of a queue decide: who rides with whom, whose turn it is, and that nobody waits for ever."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jina_asgi.runners.batching._fair_shares import REMEMBERED, FairShares
from jina_asgi.runners.batching._items import Bounds, Item, Lanes
from jina_asgi.runners.batching._kernel import BatchKernel


def kernel(lanes: Lanes, size: int = 4, max_cost: float = math.inf, **bounds: object) -> BatchKernel:
    return BatchKernel(Bounds(size, max_cost, lanes=lanes, **bounds), ahead=0)  # type: ignore[arg-type]


def run_next(queue: BatchKernel, now: float = 0.0) -> list[Item]:
    """The next batch, which is answered at once."""
    [batch] = queue.step(now).start
    items = queue.began(batch, now)
    queue.done(batch)
    return items


def run_all(queue: BatchKernel, now: float = 0.0) -> list[list[Item]]:
    found = []
    while queue.queued:
        found.append(run_next(queue, now))
    return found


costs_of = st.lists(st.floats(0, 1000), min_size=1, max_size=60)


@example(costs=[0.0, 1.0], most=1.05)
@given(costs=costs_of, most=st.sampled_from([1.0, 1.05, 1.15, 2.0]))
def test_no_batch_pads_more_than_it_may(costs: list[float], most: float) -> None:
    queue = kernel(Lanes(padded=True, max_padding=most), size=8)
    for cost in costs:
        queue.push(0.0, Item("key", cost))
    ran = run_all(queue)
    for items in ran:
        assert max(item.cost for item in items) * len(items) <= sum(item.cost for item in items) * most * (1 + 1e-9)
    assert sorted(item.cost for items in ran for item in items) == sorted(costs)


@given(costs=costs_of, bounds=st.sets(st.floats(1, 500), min_size=1, max_size=4))
def test_a_batch_stays_between_the_bounds_that_were_given(costs: list[float], bounds: set[float]) -> None:
    edges = tuple(sorted(bounds))
    queue = kernel(Lanes(padded=True, buckets=edges))
    for cost in costs:
        queue.push(0.0, Item("key", cost))
    for items in run_all(queue):
        assert len({sum(cost > edge for edge in edges) for cost in (item.cost for item in items)}) == 1


@given(costs=costs_of)
def test_the_padded_cost_of_a_batch_is_bounded(costs: list[float]) -> None:
    queue = kernel(Lanes(padded=True), size=100, max_cost=500.0)
    for cost in costs:
        queue.push(0.0, Item("key", cost))
    for items in run_all(queue):
        assert len(items) == 1 or max(item.cost for item in items) * len(items) <= 500.0


def test_fuller_buckets_go_first_until_one_has_waited_long_enough() -> None:
    queue = kernel(Lanes(padded=True, max_padding=1.5, bucket_wait=0.1), size=2)
    queue.push(0.0, Item("key", 256.0))
    for _ in range(6):
        queue.push(0.01, Item("key", 8.0))
    assert [item.cost for item in run_next(queue, 0.02)] == [8.0, 8.0]
    assert [item.cost for item in run_next(queue, 0.09)] == [8.0, 8.0]
    assert [item.cost for item in run_next(queue, 0.10)] == [256.0]


@given(seed=st.integers(0, 10_000), waits=st.sampled_from([0.0, 1.0, 5.0]))
def test_whatever_keeps_coming_no_item_waits_longer_than_the_bound_and_a_batch_for_each_who_did_too(
    seed: int, waits: float
) -> None:
    """A batch of two a second, while as many short ones come."""
    choose = random.Random(seed)
    queue = kernel(Lanes(padded=True, max_padding=1.5, bucket_wait=waits), size=2)
    rare = [Item("key", 10.0**power) for power in range(2, 5)]
    went: dict[Item, int] = {}
    for second in range(40):
        if second in (3, 5, 7):
            queue.push(second, rare[(3, 5, 7).index(second)])
        for _ in range(choose.randint(1, 2)):
            queue.push(second, Item("key", 1.0))
        went.update(dict.fromkeys(run_next(queue, second), second))
    assert all(went[item] - item.arrived <= waits + len(rare) for item in rare)


@given(
    pushes=st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 5)), min_size=1, max_size=30),
    ageing=st.sampled_from([0.5, 1.0, 10.0]),
)
def test_priorities_order_as_if_a_step_were_so_many_seconds_of_waiting(
    pushes: list[tuple[int, float]], ageing: float
) -> None:
    queue = kernel(Lanes(ageing=ageing), size=1)
    now, items = 0.0, []
    for priority, later in pushes:
        now += later
        items.append(Item("key", priority=priority))
        queue.push(now, items[-1])
    ran = [item for batch in run_all(queue, now) for item in batch]
    assert ran == sorted(items, key=lambda item: (item.arrived - item.priority * ageing, item.order))


def test_the_higher_priority_goes_first_and_the_low_one_not_last_for_ever() -> None:
    queue = kernel(Lanes(ageing=1.0), size=1)
    low = Item("key", priority=0)
    queue.push(0.0, low)
    for second in range(20):
        queue.push(float(second), Item("key", priority=5))
        run_next(queue, float(second))
        if low.state == "answered":
            break
    assert second == 5


def fair_rounds(weights: dict[str, float], mixed: bool, rounds: int) -> Counter[str]:
    """Every tenant always has ten items waiting; what each had."""
    queue, had = kernel(Lanes(weights=weights), size=4), Counter[str]()
    for tenant in "abc":
        for _ in range(10):
            queue.push(0.0, Item("key" if mixed else tenant, tenant=tenant))
    for _ in range(rounds):
        for item in run_next(queue):
            had[item.tenant] += 1
            queue.push(0.0, Item(item.key, tenant=item.tenant))
    return had


@given(
    weights=st.fixed_dictionaries({name: st.floats(0.5, 8) for name in "abc"}),
    mixed=st.booleans(),
)
def test_under_saturation_tenants_get_their_shares(weights: dict[str, float], mixed: bool) -> None:
    had = fair_rounds(weights, mixed, 400)
    total = sum(weights.values())
    for tenant, weight in weights.items():
        assert had[tenant] == pytest.approx(1600 * weight / total, abs=1600 * 0.03)


def test_a_tenant_that_comes_late_waits_for_one_batch_and_is_owed_nothing() -> None:
    queue = kernel(Lanes(weights={}), size=4)
    for _ in range(1000):
        queue.push(0.0, Item("bulk", tenant="bulk"))
    for _ in range(50):
        run_next(queue)
    late = [Item("query", tenant="query") for _ in range(100)]
    for item in late:
        queue.push(0.0, item)
    assert run_next(queue)[0].tenant == "query"
    assert {run_next(queue)[0].tenant for _ in range(2)} == {"bulk", "query"}


def test_a_dear_tenant_goes_as_much_less_often() -> None:
    queue, had = kernel(Lanes(weights={}), size=1), Counter[str]()
    for tenant, cost in (("dear", 9.0), ("cheap", 1.0)):
        for _ in range(1000):
            queue.push(0.0, Item(tenant, cost, tenant=tenant))
    for _ in range(500):
        had[run_next(queue)[0].tenant] += 1
    assert had["cheap"] == pytest.approx(9 * had["dear"], rel=0.05)


def test_tenants_are_forgotten_when_nothing_of_them_waits() -> None:
    shares = FairShares({})
    shares.added("stays")
    for number in range(10 * REMEMBERED):
        shares.added(str(number))
        shares.charged(str(number), 5.0)
    assert shares.known <= REMEMBERED + 2
    shares.removed("stays")
    assert shares.known == 0


def test_a_flood_that_is_cancelled_leaves_nothing_behind() -> None:
    queue = kernel(Lanes(weights={}, max_padding=1.15, ageing=1.0))
    stays = Item("key", 5.0, tenant="stays")
    queue.push(0.0, stays)
    for number in range(5000):
        item = Item("key", float(number % 50 + 1), deadline=1e9, tenant=f"t{number}", priority=number % 5)
        queue.push(0.0, item)
        queue.cancel(item)
    order = queue.order
    held = sum(len(value) for value in vars(order).values() if hasattr(value, "__len__") and value is not order)
    assert held < 500
    assert run_next(queue) == [stays]


def test_a_deadline_that_was_put_off_holds_as_it_is_now() -> None:
    queue = kernel(Lanes())
    queue.push(0.0, Item("key"))
    [running] = queue.step(0.0).start
    queue.began(running, 0.0)
    waits, later = Item("key", deadline=1.0), Item("key", deadline=2.0)
    queue.push(0.0, waits)
    queue.push(0.0, later)
    waits.deadline = 3.0
    assert queue.step(2.5).expired == [later]
    assert (waits.state, queue.step(3.5).expired) == ("queued", [waits])


def test_a_window_is_each_lanes_own() -> None:
    queue = kernel(Lanes(max_padding=1.5), gather="window", window=1.0)
    queue.push(0.0, Item("key", 1.0))
    queue.push(0.5, Item("key", 100.0))
    assert queue.step(0.9).start == []
    assert [item.cost for item in run_next(queue, 1.0)] == [1.0]
    assert queue.step(1.2).wake == 1.5
