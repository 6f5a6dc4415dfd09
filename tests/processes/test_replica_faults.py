"""Faults that befall one replica or what its Executor does: what each call is told, and what is left afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import threading
import time
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import (
    Context,
    DeadlineExceeded,
    DefinitionError,
    Deployment,
    Executor,
    ExecutorError,
    NotReady,
    ReplicaPool,
    requests,
)
from tests.doubles.pool_watch import children
from tests.doubles.replica_executors import Number, Order, Worker
from tests.doubles.replica_watch import all_up, kill, noted, outcome, pid_of, pids, resident, runs, seats, status, until
from tests.doubles.rig import Journal

pytestmark = pytest.mark.processes


class Pids(BaseModel):
    values: list[int] = []


class Careless(Executor):
    """Leaves behind what it should not."""

    @requests(on="/pid", idempotent=True)
    async def pid(self, docs: list[Number]) -> list[Number]:
        return [Number(value=os.getpid()) for _ in docs]

    @requests(on="/fork")
    def fork(self, doc: Number) -> Pids:
        """So many children, which ignore requests to end."""
        return Pids(values=[self._child() for _ in range(doc.value)])

    @requests(on="/thread_fails")
    def thread_fails(self, doc: Number) -> Number:
        threading.Thread(target=self._fail, args=("of a thread",)).start()
        return doc

    @requests(on="/task_fails")
    async def task_fails(self, doc: Number) -> Number:
        asyncio.get_running_loop().call_later(0.01, self._fail, "of a timer")
        asyncio.create_task(self._fail_later())  # noqa: RUF006  # that nobody keeps it is the carelessness
        return doc

    async def _fail_later(self) -> None:
        await asyncio.sleep(0)
        self._fail("of a task")

    @staticmethod
    def _fail(what: str) -> None:
        raise RuntimeError(f"grumpy cat {what}")

    @staticmethod
    def _child() -> int:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        return pid


class Hungry(Executor):
    """May have only so much memory more than it has when it loads."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept: list[bytes] = []
        with open("/proc/self/statm") as statm:
            has = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + 300_000_000, has + 300_000_000))

    @requests(on="/take")
    def take(self, doc: Number) -> Number:
        return Number(value=len(b"x" * doc.value))


class Leaking(Executor):
    """Keeps two megabytes of every call, forty times a second: the looks at it must keep up with that."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept: list[bytes] = []

    @requests(on="/leak")
    def leak(self, doc: Number) -> Number:
        self.kept.append(b"x" * 2_000_000)
        time.sleep(0.025)
        return doc


class OnlyOnTheFirstDevice(Executor):
    """Loads on one device only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if os.environ["CUDA_VISIBLE_DEVICES"] != "0":
            raise RuntimeError("device 1 has fallen off the bus")

    @requests(on="/pid", idempotent=True)
    async def pid(self, docs: list[Number]) -> list[Number]:
        return [Number(value=os.getpid()) for _ in docs]


class Flapping(Executor):
    """Well and ill by turns, five times a second."""

    def health(self) -> bool:
        return int(time.monotonic() * 5) % 2 == 0

    @requests(on="/pid", idempotent=True)
    async def pid(self, docs: list[Number]) -> list[Number]:
        return [Number(value=os.getpid()) for _ in docs]


async def within(pool: ReplicaPool, seconds: float, order: Order) -> str:
    """What becomes of a call that has so long."""
    try:
        context = Context(deadline=time.monotonic() + seconds)
        return str((await pool.call("/once", order, context=context))[0].text)
    except DeadlineExceeded:
        return "late"


async def test_a_stopped_replica_that_goes_on_gives_no_late_answers(journal: Journal) -> None:
    """RP-03: stopped in the middle of a call, and let go after its deadline."""
    async with ReplicaPool(Worker, replicas=1, env=journal.env) as pool:
        (pid,) = await all_up(pool)
        slow = asyncio.create_task(within(pool, 1.0, Order(name="slow", pause=0.5)))
        await noted(journal, "began slow")
        kill(pid, by=signal.SIGSTOP)
        start = time.monotonic()
        assert "late" == await slow
        assert time.monotonic() - start < 2.0
        kill(pid, by=signal.SIGCONT)
        orders = [Order(name=f"n{number}") for number in range(20)]
        assert [order.name.upper() for order in orders] == [await within(pool, 10.0, order) for order in orders]
        assert pids(pool) == [pid]


async def test_a_replica_whose_thread_never_returns_takes_no_calls_from_the_others(journal: Journal) -> None:
    """RP-04, RP-05: its loop still answers, so it is not known to hang; what it cannot do, others can."""
    async with ReplicaPool(Worker, replicas=2, env=journal.env) as pool:
        await all_up(pool)
        assert "late" == await within(pool, 0.3, Order(name="stuck", pause=1000))
        answers = [await within(pool, 10.0, Order(name=f"n{number}")) for number in range(20)]
        assert answers == [f"N{number}" for number in range(20)]


async def test_a_replica_whose_threads_never_return_is_replaced(journal: Journal) -> None:
    """RP-04, RP-05: what was given up for so long will hardly end."""
    async with ReplicaPool(Worker, replicas=1, env=journal.env, heartbeat=1.0, abandoned_timeout=0.5) as pool:
        [pid] = pids(pool)
        assert "late" == await within(pool, 0.3, Order(name="stuck", pause=1000))
        assert "N" == await within(pool, 20.0, Order(name="n"))
        assert pids(pool) != [pid]


async def test_a_call_that_is_cancelled_while_it_runs_keeps_others_from_waiting_behind_it(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=2, env=journal.env) as pool:
        await all_up(pool)
        stuck = asyncio.create_task(outcome(pool, "/once", Order(name="stuck", pause=1000)))
        await noted(journal, "began stuck")
        stuck.cancel()
        await asyncio.wait([stuck])
        assert "N" == await within(pool, 10.0, Order(name="n"))


async def test_one_that_only_took_too_long_is_asked_again_once_it_has_answered(journal: Journal) -> None:
    async with ReplicaPool(Worker, replicas=2, env=journal.env) as pool:
        await all_up(pool)
        for name in ("a", "b"):
            assert "late" == await within(pool, 0.3, Order(name=name, pause=0.6))
        held = [asyncio.create_task(outcome(pool, "/once", Order(name=f"h{i}", pause=0.5))) for i in range(2)]
        assert await asyncio.gather(*held) == ["right"] * 2
        assert all(seat["answered"] for seat in seats(pool))


async def test_a_lack_of_memory_is_the_error_of_the_call_that_had_it() -> None:
    """RP-07: MemoryError, by RLIMIT_AS."""
    async with ReplicaPool(Hungry, replicas=1) as pool:
        before = await all_up(pool)
        with pytest.raises(ExecutorError) as raised:
            await pool.call("/take", Number(value=1_000_000_000))
        assert raised.value.raised == "MemoryError"
        assert 1000 == (await pool.call("/take", Number(value=1000)))[0].value
        assert pids(pool) == before


async def test_the_log_says_what_a_kill_may_mean(caplog: pytest.LogCaptureFixture) -> None:
    """RP-07: as the kernel does it where memory has run out."""
    caplog.set_level(logging.ERROR, "jina_asgi")
    async with ReplicaPool(Worker, replicas=1) as pool:
        pid = await pid_of(pool)
        kill(pid)
        assert await pid_of(pool) != pid
    assert "was killed by SIGKILL, probably for want of memory" in caplog.text


async def test_replicas_that_leak_are_replaced_before_they_have_too_much_and_no_call_fails() -> None:
    """RP-08, scaled down."""
    others = set(children(os.getpid()))
    async with ReplicaPool(Leaking, replicas=1) as pool:
        cap = resident(pids(pool)[0]) + 150_000_000  # of what one has that has just loaded; all together leak 800 more
    async with ReplicaPool(Leaking, replicas=2, max_rss=cap, heartbeat=1.0) as pool:
        before = await all_up(pool)
        gate = asyncio.Semaphore(4)

        async def call(number: int) -> int:
            async with gate:  # more than there are replicas, so that each has work
                value: int = (await pool.call("/leak", Number(value=number)))[0].value
                return value

        assert await asyncio.gather(*map(call, range(400))) == list(range(400))
        await until(lambda: not set(before) & set(pids(pool)) and all(resident(pid) < cap for pid in pids(pool)))
        await until(lambda: set(children(os.getpid())) - others == set(pids(pool)))  # the replaced have gone
        assert status(pool)["lost"] == status(pool)["moved"] == 0


async def test_where_one_device_does_not_work_the_others_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """RP-09: it fails to load in the second replica alone."""
    monkeypatch.setenv("CUDA_TOTAL_DEVICES", "2")
    async with ReplicaPool(OnlyOnTheFirstDevice, replicas=2, env={"CUDA_VISIBLE_DEVICES": "RR"}) as pool:
        await until(lambda: seats(pool)[1]["failure"] is not None)
        assert "RuntimeError" == seats(pool)[1]["failure"]["type"]
        assert {seats(pool)[0]["pid"]} == {await pid_of(pool) for _ in range(10)}
        assert not pool.runner.unhealthy_reason()


async def test_a_crowd_of_children_ends_with_the_replica_that_forked_them() -> None:
    """RP-12."""
    async with ReplicaPool(Careless, replicas=1) as pool:
        first = await pid_of(pool)
        crowd = (await pool.call("/fork", Number(value=50)))[0].values
        assert len({pid for pid in crowd if runs(pid)}) == 50
        kill(first)
        await until(lambda: not any(map(runs, crowd)), within=2.0)
        assert await pid_of(pool) != first


async def test_what_fails_after_an_answer_is_logged_with_the_replicas_name_and_ends_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """RP-20."""
    async with ReplicaPool(Careless, replicas=1, name="careless") as pool:
        before = await pid_of(pool)
        for on in ("/thread_fails", "/task_fails"):
            assert 7 == (await pool.call(on, Number(value=7)))[0].value
        logged = ""

        def all_logged() -> bool:
            nonlocal logged
            logged += capsys.readouterr().err
            return all(f"RuntimeError: grumpy cat of a {what}" in logged for what in ("thread", "task", "timer"))

        await until(all_logged)
        assert all(line.startswith("[careless/rep-0] ") for line in logged.splitlines() if "grumpy" in line)
        assert await pid_of(pool) == before


async def test_no_replicas_at_all_are_refused() -> None:
    """RP-21."""
    with pytest.raises(DefinitionError, match="replicas"):
        Deployment(Worker, replicas=0)


async def test_health_that_flaps_refuses_now_and_then_and_restarts_nothing() -> None:
    """RP-25."""
    seen = {"right": 0, "NotReady": 0}
    async with ReplicaPool(Flapping, replicas=1, heartbeat=1.0) as pool:
        (pid,) = await all_up(pool)

        async def both_were_seen() -> None:
            while min(seen.values()) < 20:
                try:
                    assert await pid_of(pool) == pid
                    seen["right"] += 1
                except NotReady:
                    seen["NotReady"] += 1
                await asyncio.sleep(0.01)  # the health changes with time

        async with asyncio.timeout(20.0):
            await both_were_seen()
        assert seats(pool)[0]["restarts"] == 0


@pytest.mark.parametrize("uses", ["no_such_package.module.Model", "tests.doubles.replica_executors.NoSuchClass"])
async def test_an_import_path_that_leads_nowhere_is_reported_at_once(
    uses: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RP-11: a module that is not there will not be there a second later."""
    caplog.set_level(logging.ERROR, "jina_asgi")
    with pytest.raises((ExecutorError, DefinitionError), match=r"no_such_package|NoSuchClass"):
        async with ReplicaPool(uses, replicas=1):
            raise AssertionError
    assert 1 == sum("failed to start" in record.getMessage() for record in caplog.records)
