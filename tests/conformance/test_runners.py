"""One suite over every Runner: a new Runner or protocol adds one function and its name in RUNNERS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import pytest
from docarray import DocList

from jina_asgi import Deployment, Executor, Flow, GRPCSidecar, JinaASGI, ReplicaPool, requests
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.protocols.grpc.remote import GrpcRunner
from jina_asgi.protocols.remote.server import HttpRunner
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.flow.shards import HeadRunner, ShardRunner
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.testing import ASGITransport, runner_conformance
from jina_asgi.types import Endpoint, Runner
from tests.doubles.uvicorn_server import free_port, serving
from tests.doubles.websocket_runner import WebSocketRunner, app_dialler


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


class Served(Wrapper):
    """A Runner of an application that is served as long as the Runner lives."""

    def __init__(self, inner: Runner, *served: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        super().__init__(inner)
        self._served = served

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for begin in (*self._served, self.inner.lifespan):
                await stack.enter_async_context(begin())
            yield


def application(uses: type[Executor], **options: Any) -> JinaASGI:
    """What an Executor raised is told here, as the checks ask what it was: elsewhere that is no client's business."""
    return JinaASGI(Deployment(uses, **options), wait_ready=True, expose_errors=True)


def over_http(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Runner:
    asgi = application(uses, grace=grace, **options)
    http = HttpRunner("http://test", transport=ASGITransport(asgi), endpoints=asgi.source.endpoints, grace=grace)
    return Served(http, asgi.lifespan)


def over_a_socket(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Runner:
    asgi, port = application(uses, grace=grace, **options), free_port()
    http = HttpRunner(f"http://127.0.0.1:{port}", endpoints=asgi.source.endpoints, grace=grace)
    return Served(http, asgi.lifespan, lambda: serving(asgi, port=port))


#: HTTP/1.1 says nothing of a request that its client has left: that the generator was closed is seen a moment later.
over_a_socket.confirms_closing = False  # type: ignore[attr-defined]  # a check reads it


def over_a_websocket_in_process(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Runner:
    asgi = application(uses, grace=grace, **options)
    asked = WebSocketRunner(
        "http://test",
        dial=app_dialler(asgi),
        transport=ASGITransport(asgi),
        endpoints=asgi.source.endpoints,
        grace=grace,
    )
    return Served(asked, asgi.lifespan)


def over_a_websocket(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Runner:
    asgi, port = application(uses, grace=grace, **options), free_port()
    asked = WebSocketRunner(f"http://127.0.0.1:{port}", endpoints=asgi.source.endpoints, grace=grace)
    return Served(asked, asgi.lifespan, lambda: serving(asgi, port=port))


def over_grpc(uses: type[Executor], /, *, grace: float = 30.0, **options: Any) -> Runner:
    deployment, where = Deployment(uses, grace=grace, **options), f"127.0.0.1:{free_port()}"
    sidecar = GRPCSidecar(deployment, where, expose_errors=True)
    asked = GrpcRunner([where], endpoints=deployment.endpoints, grace=grace)
    return Served(asked, sidecar.lifespan)


#: HTTP/2 says that a call was cancelled, and not when its server has ended it.
over_grpc.confirms_closing = False  # type: ignore[attr-defined]  # a check reads it

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
    over_http,
    over_a_socket,
    over_a_websocket_in_process,
    over_a_websocket,
    over_grpc,
]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("check", runner_conformance, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", RUNNERS, ids=lambda make: make.__name__)
async def test_a_runner_keeps_the_contract(make: Any, check: Any) -> None:
    await check(make)
