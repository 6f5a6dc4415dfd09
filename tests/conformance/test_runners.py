"""One suite over every Runner: a new Runner adds one line."""

from __future__ import annotations

from typing import Any

import pytest

from jina_asgi import Deployment, Executor, Flow, ReplicaPool
from jina_asgi.protocols.pipe import pipe_pair
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.shards import ShardRunner
from jina_asgi.testing import runner_conformance
from jina_asgi.types import Runner


def local(uses: type[Executor], /, **options: Any) -> Runner:
    return Deployment(uses, **options).runner


def over_a_pipe(uses: type[Executor], /, **options: Any) -> Runner:
    runner = local(uses, **options)
    return pipe_pair(runner, endpoints=runner.endpoints)


BATCHED = ("/sync", "/in_place", "/vector", "/wait", "/block", "/raise", "/refuse", "/exit", "/wrong")


def batched(uses: type[Executor], /, **options: Any) -> Runner:
    """Every endpoint that answers one document with one batches; the others change their number, or look at the call."""
    names = [name for name in BATCHED if name in Deployment(uses).endpoints] or ["/only"]
    return local(uses, uses_dynamic_batching={name: {"preferred_batch_size": 8} for name in names}, **options)


def batched_over_a_pipe(uses: type[Executor], /, **options: Any) -> Runner:
    runner = batched(uses, **options)
    return pipe_pair(runner, endpoints=runner.endpoints)


def in_processes(uses: type[Executor], /, **options: Any) -> Runner:
    return ReplicaPool(uses, replicas=1, **options).runner


def batched_in_the_host(uses: type[Executor], /, **options: Any) -> Runner:
    return batched(uses, replicas=1, placement="pool", **options)


def flow_of_one(uses: type[Executor], /, **options: Any) -> Runner:
    return Flow().add(uses=uses, **options).runner


def flow_of_two(uses: type[Executor], /, **options: Any) -> Runner:
    """The first node hands on what it is given."""
    return Flow().add(name="first").add(uses=uses, **options).runner


def flow_in_a_flow(uses: type[Executor], /, **options: Any) -> Runner:
    return Flow().add(uses=Flow().add(uses=uses, **options), name="inner").runner


def sharded(uses: type[Executor], /, **options: Any) -> Runner:
    """One shard answers as if it were alone: what happened to a call is asked of the shard that it went to."""
    return ShardRunner(
        "executor",
        [local(uses, **options)],
        lambda endpoint: True,
        no_reduce=False,
        admission=Admission(options.get("max_queue", 1024), 2**20),
    )


RUNNERS = [
    local,
    over_a_pipe,
    batched,
    batched_over_a_pipe,
    in_processes,
    batched_in_the_host,
    flow_of_one,
    flow_of_two,
    flow_in_a_flow,
    sharded,
]


@pytest.mark.parametrize("check", runner_conformance, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", RUNNERS, ids=lambda make: make.__name__)
async def test_a_runner_keeps_the_contract(make: Any, check: Any) -> None:
    await check(make)
