"""What a call leaves behind is freed as it ends, not by a garbage collection: while something is served those are rare."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, Flow, GRPCSidecar, JinaASGI, ReplicaPool, requests
from jina_asgi.documents.codec import codec
from jina_asgi.errors import DeadlineExceeded, JinaASGIError
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.protocols.grpc.remote import GrpcRunner
from jina_asgi.protocols.protobuf import requests as wire
from jina_asgi.types import Call, Context, Runner
from tests.doubles.reference_cycles import check_no_cycle_after, end_dropped_applications

PATIENCE = 30.0  # seconds
POST = "/jina.JinaSingleDataRequestRPC/process_single_data"


class Text(BaseDoc):
    text: str = ""


class Answering(Executor):
    """Answers; fails at the word "bad"; waits at the word "wait"."""

    @requests(on="/async")
    async def in_the_loop(self, docs: DocList[Text]) -> DocList[Text]:
        if docs[0].text == "wait":
            await asyncio.sleep(PATIENCE)
        return self.answer(docs)

    @requests(on="/sync")
    def in_a_thread(self, docs: DocList[Text]) -> DocList[Text]:
        return self.answer(docs)

    @requests(on="/async_batch")
    async def batched(self, docs: DocList[Text]) -> DocList[Text]:
        return await self.in_the_loop(docs)

    @requests(on="/sync_batch")
    def batched_in_a_thread(self, docs: DocList[Text]) -> DocList[Text]:
        return self.answer(docs)

    def answer(self, docs: DocList[Text]) -> DocList[Text]:
        if docs[0].text == "bad":
            raise ValueError("a bad text")
        return docs


class Moody(Answering):
    """Streams, too."""

    @requests(on="/async_stream")
    async def streamed(self, doc: Text) -> AsyncIterator[Text]:
        for _ in range(3):
            if doc.text == "wait":
                await asyncio.sleep(PATIENCE)
            yield self.answer(DocList[Text]([doc]))[0]

    @requests(on="/sync_stream")
    def streamed_from_a_thread(self, doc: Text) -> Generator[Text, None, None]:
        for _ in range(3):
            yield self.answer(DocList[Text]([doc]))[0]


CALLS = ("/async", "/sync", "/async_batch", "/sync_batch")
STREAMS = ("/async_stream", "/sync_stream")
BATCHED: dict[str, Any] = {name: {"preferred_batch_size": 4} for name in ("/async_batch", "/sync_batch")}
#: What a caller does: reads all, has an error, or leaves (once the call has begun).
CASES = [(on, text) for on in (*CALLS, *STREAMS) for text in ("good", "bad")] + [
    (on, "wait") for on in ("/async", "/async_batch", "/async_stream")
]


def moody() -> Deployment:
    return Deployment(Moody, uses_dynamic_batching=BATCHED)


async def left(work: Awaitable[Any], begun: asyncio.Event | None = None) -> None:
    """Leave a call that goes on."""
    task = asyncio.ensure_future(work)
    await (asyncio.sleep(0.005) if begun is None else begun.wait())
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


# ---- in process, over bytes, through a Flow, in replicas ----


def a_call(runner: Runner, on: str, text: str, *, deadline: float | None = None) -> Call:
    return Call(on, codec(runner.endpoints[on].input).docs([Text(text=text)]), {}, Context(deadline=deadline))


async def ask(runner: Runner, on: str, text: str) -> None:
    async def whole() -> None:
        with suppress(JinaASGIError):
            if on in STREAMS:
                async with aclosing(runner.stream(a_call(runner, on, text))) as steps:
                    _ = [docs async for docs in steps]
            else:
                await runner.call(a_call(runner, on, text))

    await (left(whole()) if text == "wait" else whole())


def over_a_pipe() -> Runner:
    runner = moody().runner
    return pipe_pair(runner, endpoints=runner.endpoints)


RUNNERS: dict[str, Callable[[], Runner]] = {
    "in process": lambda: moody().runner,
    "over a pipe": over_a_pipe,
    "in a Flow": lambda: Flow().add(uses=Moody, uses_dynamic_batching=BATCHED).runner,
    "in a Flow of two branches": lambda: (
        Flow().add(uses=Answering, name="a").add(uses=Answering, name="b", needs="gateway").needs_all().runner
    ),
}


@pytest.fixture(autouse=True)
def _nothing_else_ends_meanwhile() -> None:
    end_dropped_applications()


@pytest.mark.parametrize(("on", "text"), CASES)
@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_call_leaves_nothing_to_the_garbage_collector(runner: str, on: str, text: str) -> None:
    if runner == "in a Flow of two branches" and on in STREAMS:
        pytest.skip("a join of two streams is refused")
    made = RUNNERS[runner]()
    async with made.lifespan():
        await check_no_cycle_after(partial(ask, made, on, text))


@pytest.mark.processes
async def test_a_call_to_a_replica_leaves_nothing_to_the_garbage_collector_of_who_called() -> None:
    pool = ReplicaPool(Moody, replicas=1, uses_dynamic_batching=BATCHED).runner
    async with pool.lifespan():
        for case in CASES:
            await check_no_cycle_after(partial(ask, pool, *case))


# ---- HTTP, server-sent events, WebSockets, gRPC: the server's side alone, as httpx makes cycles of its own ----

SCOPE = {"asgi": {"version": "3.0"}, "http_version": "1.1", "query_string": b"", "root_path": "", "client": ("a", 1)}


async def over_http(app: Any, on: str, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps({"data": {"text": text}}).encode()
    gone, messages = asyncio.Event(), [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        return

    typed = [(b"content-type", b"application/json"), *headers]
    scope = {**SCOPE, "type": "http", "method": "POST", "path": on, "raw_path": on.encode(), "headers": typed}
    serving = asyncio.create_task(app({**scope, "scheme": "http", "server": ("b", 2), "state": {}}, receive, send))
    if text == "wait" and not headers:
        await asyncio.sleep(0.005)
        gone.set()
    await serving


async def over_a_websocket(app: Any, on: str, text: str) -> None:
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "websocket.connect"})
    question = json.dumps({"id": 1, "endpoint": on, "data": [{"text": text}]})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.accept":
            inbox.put_nowait({"type": "websocket.receive", "text": question})
            if text == "wait":
                await asyncio.sleep(0.005)
                inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
        elif '"end"' in message.get("text", "") or '"error"' in message.get("text", ""):
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})

    scope = {**SCOPE, "type": "websocket", "path": "/-/ws", "raw_path": b"/-/ws", "headers": [], "subprotocols": []}
    await app({**scope, "scheme": "ws", "server": ("b", 2), "state": {}}, inbox.get, send)


PROTOCOLS: dict[str, Callable[[Any, str, str], Awaitable[None]]] = {"HTTP": over_http, "WebSocket": over_a_websocket}


@asynccontextmanager
async def an_application() -> AsyncIterator[JinaASGI]:
    application = JinaASGI(moody())
    async with application.lifespan(application):
        yield application


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_leaves_nothing_to_the_garbage_collector_of_the_server(protocol: str) -> None:
    async with an_application() as application:
        for case in CASES:
            await check_no_cycle_after(partial(PROTOCOLS[protocol], application, *case))


@pytest.mark.parametrize("on", ["/async", "/async_batch", "/nothing_there"])
async def test_a_deadline_or_a_refusal_leaves_nothing_to_the_garbage_collector(on: str) -> None:
    async with an_application() as application:
        soon = ((b"x-request-timeout", b"0.002"),)
        await check_no_cycle_after(partial(over_http, application, on, "wait", soon))


async def test_a_call_over_grpc_leaves_nothing_to_the_garbage_collector() -> None:
    async with GRPCSidecar(moody()) as sidecar, grpc.aio.insecure_channel(f"127.0.0.1:{sidecar.port}") as channel:
        docs = {text: codec(moody().endpoints["/async"].input).docs([Text(text=text)]) for _, text in CASES}

        async def over_grpc(on: str, text: str) -> None:
            question = wire.request(on, docs[text], {}, request_id="r").SerializeToString()
            asked = channel.unary_unary(POST)(question)

            async def whole() -> None:
                await asked

            await (left(whole()) if text == "wait" else whole())

        for case in CASES:
            if case[0] in CALLS:
                await check_no_cycle_after(partial(over_grpc, *case))


async def test_a_late_call_over_grpc_leaves_nothing_to_the_garbage_collector_of_its_client() -> None:
    """Such a cycle kept the connection, and with it gRPC's thread and its descriptors."""
    served = moody()
    async with GRPCSidecar(served) as sidecar:
        runner = GrpcRunner([f"127.0.0.1:{sidecar.port}"], endpoints=served.endpoints)

        async def late() -> None:
            with suppress(DeadlineExceeded):
                await runner.call(a_call(runner, "/async", "good", deadline=time.monotonic() - 1.0))
                raise AssertionError

        async with runner.lifespan():
            await check_no_cycle_after(late)
