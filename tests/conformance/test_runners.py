"""One suite over every Runner: a new Runner adds one function and its name in RUNNERS."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from docarray import DocList

from jina_asgi import Deployment, Executor, Flow, ReplicaPool, requests
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.flow.shards import HeadRunner, ShardRunner
from jina_asgi.testing import runner_conformance
from jina_asgi.types import Endpoint, Runner
from tests.conformance.protocols import PROTOCOLS


def local(uses: type[Executor], /, **options: Any) -> Runner:
    return Deployment(uses, **options).runner


def over_a_pipe(uses: type[Executor], /, **options: Any) -> Runner:
    runner = local(uses, **options)
    return pipe_pair(runner, endpoints=runner.endpoints)


BATCHED = ("/sync", "/in_place", "/vector", "/wait", "/block", "/raise", "/refuse", "/exit", "/wrong")


#: Every option that changes who goes first, or with whom.
EVERY_OPTION = {
    "tenant": "header:x-tenant",
    "tenant_weights": {"gold": 3},
    "mix_tenants": True,
    "priority": "header:x-priority",
    "latency_target": 60_000,
    "single_flight": True,
}


def batched(uses: type[Executor], /, **options: Any) -> Runner:
    """Every endpoint that answers one document with one batches; the others change their number, or look at the call."""
    return batched_by({}, uses, options)


def batched_by(batching: dict[str, Any], uses: type[Executor], options: dict[str, Any]) -> Runner:
    names = [name for name in BATCHED if name in Deployment(uses).endpoints] or ["/only"]
    by_name = {name: {"preferred_batch_size": 8, **batching} for name in names}
    return local(uses, uses_dynamic_batching=by_name, **options)


def batched_with_every_option(uses: type[Executor], /, **options: Any) -> Runner:
    return batched_by(EVERY_OPTION, uses, options)


def batched_with_every_option_in_the_host(uses: type[Executor], /, **options: Any) -> Runner:
    return batched_by(EVERY_OPTION, uses, {**options, "replicas": 1, "placement": "pool"})


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


def sharded(uses: type[Executor], /, **options: Any) -> ShardRunner:
    """One shard answers as if it were alone: what happened to a call is asked of the shard that it went to."""
    return ShardRunner(
        "executor",
        [local(uses, **options)],
        lambda endpoint: True,
        no_reduce=False,
        admission=Admission(options.get("max_queue", 1024), options.get("max_queue_bytes", 2**20)),
    )


def handing_on(uses: type[Executor], which: Literal["input", "output"]) -> type[Executor]:
    """An Executor with the endpoints of another that hands on the documents which that one takes, or gives."""

    def hands_on(endpoint: Endpoint) -> Any:
        model: Any = getattr(endpoint, which).model

        async def one(self: Any, doc: Any) -> Any:
            return doc

        async def several(self: Any, docs: Any) -> Any:
            return docs

        method, name, kind = (one, "doc", model) if endpoint.kind == "single" else (several, "docs", DocList[model])
        method.__annotations__ = {name: kind, "return": kind}
        return requests(on=endpoint.name, idempotent=True)(method)

    endpoints = Deployment(uses).endpoints.values()
    return type("HandsOn", (Executor,), {f"method{n}": hands_on(endpoint) for n, endpoint in enumerate(endpoints)})


def with_one_before_and_one_after(uses: type[Executor], /, **options: Any) -> Runner:
    before, after = local(handing_on(uses, "input")), local(handing_on(uses, "output"))
    return HeadRunner(sharded(uses, **options), before, after, grace=options.get("grace", 30.0))


TRACED: dict[str, Any] = {
    "tracing": True,
    "traces_exporter_port": 1,
}  # with `unexported`, spans are recorded and not exported


def traced(uses: type[Executor], /, **options: Any) -> Runner:
    return local(uses, **options, **TRACED)


def traced_batched(uses: type[Executor], /, **options: Any) -> Runner:
    return batched(uses, **options, **TRACED)


def traced_in_the_host(uses: type[Executor], /, **options: Any) -> Runner:
    return batched_in_the_host(uses, **options, **TRACED)


def traced_flow(uses: type[Executor], /, **options: Any) -> Runner:
    return Flow(**TRACED).add(name="first").add(uses=uses, **options).runner


@pytest.fixture(autouse=True)
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


RUNNERS = [
    local,
    over_a_pipe,
    batched,
    batched_over_a_pipe,
    batched_with_every_option,
    pytest.param(in_processes, marks=pytest.mark.processes),
    pytest.param(batched_in_the_host, marks=pytest.mark.processes),
    pytest.param(batched_with_every_option_in_the_host, marks=pytest.mark.processes),
    flow_of_one,
    flow_of_two,
    flow_in_a_flow,
    sharded,
    with_one_before_and_one_after,
    traced,
    traced_batched,
    pytest.param(traced_in_the_host, marks=pytest.mark.processes),
    traced_flow,
    *PROTOCOLS,
]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("check", runner_conformance, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", RUNNERS, ids=lambda make: make.__name__)
async def test_a_runner_keeps_the_contract(make: Any, check: Any) -> None:
    await check(make)
