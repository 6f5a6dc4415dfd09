"""Processes that an Executor's code starts in a replica are ordinary ones: what befalls them befalls nobody else."""

from __future__ import annotations

import asyncio
import signal

import pytest

from jina_asgi import ReplicaDied, ReplicaPool
from tests.doubles.replica_executors import Number, Parent
from tests.doubles.replica_watch import pids

pytestmark = pytest.mark.processes

#: Those that end a process: `nohup` has the first ignored by all that it starts.
SIGNALS = [n for n in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1) if signal.getsignal(n) != signal.SIG_IGN]


async def test_children_end_by_what_ends_them_and_the_replica_lives() -> None:
    async with ReplicaPool(Parent, replicas=1) as pool:
        before = pids(pool)
        for on in ("/forked", "/forked_async", "/run", "/run_async"):
            for number in SIGNALS:
                [ended] = await pool.call(on, Number(value=number))
                assert -number == ended.value, on
        [interrupted] = await pool.call("/run", Number(value=signal.SIGINT))
        assert -signal.SIGINT == interrupted.value
        [wrapped] = await pool.call("/forked_wrapped", Number(value=signal.SIGTERM))
        assert -signal.SIGTERM == wrapped.value
        [counted] = await pool.call("/pool", Number(value=10))
        assert 45 == counted.value
        [inherited] = await pool.call("/inherited", Number())
        assert 0 == inherited.value
        assert before == pids(pool)


async def test_a_replica_that_dies_and_leaves_a_child_behind_is_seen_to_be_dead() -> None:
    async with ReplicaPool(Parent, replicas=1, heartbeat=15.0) as pool, asyncio.timeout(10.0):
        with pytest.raises(ReplicaDied):
            await pool.call("/leave_behind", Number())
