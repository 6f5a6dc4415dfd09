"""Crowds of callers that come and leave: every Runner that queues, batches, pools or streams, over every protocol.

Callers arrive with pauses of none or some turns of the loop, ask for one to many documents, with and without deadlines,
some of them bad, and leave in random order at random turns; meanwhile replicas may be killed. Whoever stays is answered,
then one calm caller is answered within a second, and every count is what it was.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, Flow, GRPCSidecar, JinaASGI, ReplicaPool, requests
from jina_asgi.documents.codec import codec
from jina_asgi.errors import JinaASGIError
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.protocols.grpc.remote import GrpcRunner
from jina_asgi.protocols.remote.protobuf_answers import request_of
from jina_asgi.protocols.remote.server import HttpRunner
from jina_asgi.protocols.remote.transport import OutgoingRequest
from jina_asgi.protocols.websocket.asgi_transport import InProcessSocket
from jina_asgi.protocols.websocket.binary_remote import BinaryRemote
from jina_asgi.testing import ASGITransport
from jina_asgi.types import Call, Context, Docs, Endpoint
from tests.doubles.uvicorn_server import free_port
from tests.doubles.websocket_runner import WebSocketRunner, app_dialler

CALM = 1.0  # seconds in which a calm caller is answered
SILENCE = 10.0  # seconds after which a caller that stayed counts as never answered
MANY = 12  # documents of one call


class Text(BaseDoc):
    text: str = ""


class Calls(Executor):
    """Endpoints that answer once, on the loop and in a thread; what is called "bad" makes them raise."""

    @requests(on="/async")
    async def on_the_loop(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.sleep(0.002)
        return _good(docs)

    @requests(on="/sync")
    def in_a_thread(self, docs: DocList[Text]) -> DocList[Text]:
        time.sleep(0.0005)  # work
        return _good(docs)


class Crowded(Calls):
    """Streams beside these, from a thread and from the loop."""

    @requests(on="/steps")
    def steps(self, doc: Text) -> Iterator[Text]:
        for _ in range(5):
            yield doc

    @requests(on="/pauses")
    async def pauses(self, doc: Text) -> AsyncIterator[Text]:
        for _ in range(5):
            await asyncio.sleep(0)
            yield doc


def _good(docs: DocList[Text]) -> DocList[Text]:
    if any(doc.text == "bad" for doc in docs):
        raise ValueError("a bad document")
    return docs


ENDPOINTS: Mapping[str, Endpoint] = Deployment(Crowded).endpoints
CALLS, STREAMS = ("/async", "/sync"), ("/steps", "/pauses")
EVERY_OPTION: Mapping[str, Any] = {
    "tenant": "header:x-tenant",
    "priority": "header:x-priority",
    "latency_target": 60_000,
    "single_flight": True,
}


def _batched(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"uses_dynamic_batching": {name: {"preferred_batch_size": 4, **options} for name in CALLS}}


#: What serves: a Deployment or a Flow, made anew.
PLACES: Mapping[str, Callable[[], Any]] = {
    "local": lambda: Deployment(Crowded),
    "batched": lambda: Deployment(Crowded, **_batched({})),
    "bisecting": lambda: Deployment(Crowded, allow_concurrent=2, idempotent=True, **_batched({})),
    "every option": lambda: Deployment(Crowded, **_batched(EVERY_OPTION)),
    "flow": lambda: (
        Flow()
        .add(uses=Crowded, name="a", **_batched({}))
        .add(uses=Calls, name="b", needs="a", **_batched({}))
        .add(uses=Calls, name="c", needs="a")
        .add(uses=Calls, name="log", needs="a", floating=True)
        .add(name="join", needs=["b", "c"])
    ),
    "shards": lambda: Deployment(Crowded, shards=2, polling="ALL"),
    "pool": lambda: ReplicaPool(Crowded, replicas=2),
    "batched pool": lambda: ReplicaPool(Crowded, replicas=2, **_batched({})),
}
#: Those whose work is done by other processes.
IN_PROCESSES = ("pool", "batched pool")


class Ask(Protocol):
    """What makes one call: the endpoint, the documents, and seconds until it is too late."""

    async def __call__(self, endpoint: str, docs: Docs, timeout: float | None, /) -> None: ...


def by_runner(runner: Any) -> Ask:
    """Asks a Runner; of a stream it reads to the end."""

    async def ask(endpoint: str, docs: Docs, timeout: float | None, /) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        call = Call(endpoint, docs, {}, Context(deadline=deadline))
        if endpoint in STREAMS:
            async with aclosing(runner.stream(call)) as steps:
                async for _ in steps:
                    pass
        else:
            await runner.call(call)

    return ask


@asynccontextmanager
async def _in_process(served: Any) -> AsyncIterator[Ask]:
    async with served.runner.lifespan():
        yield by_runner(served.runner)


@asynccontextmanager
async def _over_frames(served: Any) -> AsyncIterator[Ask]:
    runner = pipe_pair(served.runner, endpoints=served.runner.endpoints)
    async with runner.lifespan():
        yield by_runner(runner)


@asynccontextmanager
async def _over_http(served: Any) -> AsyncIterator[Ask]:
    asgi = JinaASGI(served, wait_ready=True)
    runner = HttpRunner("http://test", transport=ASGITransport(asgi), endpoints=asgi.source.endpoints)
    async with asgi.lifespan(), runner.lifespan():
        yield by_runner(runner)


@asynccontextmanager
async def _over_a_websocket(served: Any) -> AsyncIterator[Ask]:
    asgi = JinaASGI(served, wait_ready=True)
    transport = ASGITransport(asgi)
    runner = WebSocketRunner(
        "http://test", dial=app_dialler(asgi), transport=transport, endpoints=asgi.source.endpoints
    )
    async with asgi.lifespan(), runner.lifespan():
        yield by_runner(runner)


@asynccontextmanager
async def _over_a_socket_each(served: Any) -> AsyncIterator[Ask]:
    """A JSON WebSocket for each caller, who closes it in leaving."""
    asgi = JinaASGI(served, wait_ready=True)

    async def ask(endpoint: str, docs: Docs, timeout: float | None, /) -> None:
        socket = InProcessSocket(asgi, _socket_scope("/-/ws", []))
        await socket.open()
        try:
            data = [{"text": doc.text} for doc in docs.typed]
            await socket.send({"id": 1, "endpoint": endpoint, "data": data, "timeout": timeout})
            while (await socket.receive())["event"] == "data":
                pass
        finally:
            await socket.close()

    async with asgi.lifespan():
        yield ask


@asynccontextmanager
async def _over_jinas_websocket(served: Any) -> AsyncIterator[Ask]:
    asgi = JinaASGI(served, wait_ready=True)
    http = httpx.AsyncClient(transport=ASGITransport(asgi))

    async def ask(endpoint: str, docs: Docs, timeout: float | None, /) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        asked = OutgoingRequest(
            endpoint=endpoint, docs=docs, header={"request_id": os.urandom(8).hex()}, deadline=deadline
        )
        link = await remote._links.take({})
        try:
            async with asyncio.timeout(timeout):
                message = request_of(asked)
                await link.ask(message.header.request_id, message.SerializeToString())
        finally:
            await remote._links.release(link)

    async with asgi.lifespan(), http:
        remote = BinaryRemote(http, "http://test", app_dialler(asgi, subprotocols=["bytes"]))
        try:
            yield ask
        finally:
            await remote.close()


@asynccontextmanager
async def _over_grpc(served: Any) -> AsyncIterator[Ask]:
    where = f"127.0.0.1:{free_port()}"
    runner = GrpcRunner([where], endpoints=served.endpoints)
    async with GRPCSidecar(served, where).lifespan(), runner.lifespan():
        yield by_runner(runner)


#: Each way to ask what serves; its scope is the life of both.
WAYS: Mapping[str, Callable[[Any], Any]] = {
    "in process": _in_process,
    "frames": _over_frames,
    "http": _over_http,
    "websocket": _over_a_websocket,
    "a websocket each": _over_a_socket_each,
    "jina's websocket": _over_jinas_websocket,
    "grpc": _over_grpc,
}
WITHOUT_STREAMS = ("jina's websocket",)


def _socket_scope(path: str, subprotocols: list[str]) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "subprotocols": subprotocols,
        "server": ("test", 80),
        "client": ("testclient", 50000),
        "root_path": "",
        "state": {},
        "extensions": {},
    }


@dataclass
class Crowds:
    """Crowds over one way to one place.

    Attributes:
        chance: what is drawn.
        leavings: how many callers have left.
        told: what those that stayed were told.
    """

    ask: Ask
    chance: random.Random
    streams: bool = True
    leavings: int = 0
    told: dict[str, int] = field(default_factory=dict)

    async def leave(self, count: int, between: Callable[[], object] = lambda: None) -> None:
        """So many callers leave, in crowds; after each one a calm caller is answered. `between` is called before each."""
        until = self.leavings + count
        while self.leavings < until:
            between()
            await self._crowd(min(until - self.leavings, self.chance.randint(2, 60)))
            await self.calm()

    async def calm(self) -> None:
        """One caller is answered within a second, from each kind of endpoint; it asks again where it is told that it may."""
        for endpoint in self._endpoints():
            await asyncio.wait_for(self._answered(endpoint), CALM)

    async def _answered(self, endpoint: str) -> None:
        while True:
            try:
                return await self.ask(endpoint, _docs(["calm"]), None)
            except JinaASGIError as error:  # it rode with a bad document, or its replica was killed a moment ago
                if not error.retriable:
                    raise
                await asyncio.sleep(0)

    async def _crowd(self, leaving: int) -> None:
        chance = self.chance
        callers, staying = list[asyncio.Task[None]](), list[asyncio.Task[None]]()
        for number in range(leaving + leaving // 8):
            task = asyncio.ensure_future(self._caller())
            (callers if number < leaving else staying).append(task)
            await self._pause()
        chance.shuffle(callers)
        for task in callers:
            self.leavings += 1
            task.cancel()
            if chance.random() < 0.2:
                await self._pause()
        if staying:
            _, silent = await asyncio.wait(staying, timeout=SILENCE)
            assert not silent, f"{len(silent)} callers that stayed were never answered"
        if callers:
            _, stuck = await asyncio.wait(callers, timeout=SILENCE)
            assert not stuck, f"{len(stuck)} callers could not leave"
        for task in (*staying, *callers):
            if not task.cancelled():
                task.result()

    async def _caller(self) -> None:
        """One caller: answered, or told one of our errors."""
        chance = self.chance
        endpoint = chance.choice(self._endpoints())
        docs = self._texts(1 if endpoint in STREAMS else chance.choice((1, 1, 2, 5, MANY)), bad=0.02)
        timeout = chance.choice((None, None, None, 0.0, 0.002, 0.01, 5.0))
        try:
            await self.ask(endpoint, docs, timeout)
            said = "right"
        except (JinaASGIError, TimeoutError) as error:
            said = type(error).__name__
        self.told[said] = self.told.get(said, 0) + 1

    async def _pause(self) -> None:
        kind = self.chance.random()
        if kind < 0.5:
            return
        if kind < 0.95:
            for _ in range(self.chance.randint(1, 4)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.chance.choice((0.001, 0.003)))

    def _endpoints(self) -> tuple[str, ...]:
        return (*CALLS, *STREAMS) if self.streams else CALLS

    def _texts(self, count: int, *, bad: float) -> Docs:
        chance = self.chance
        return _docs(["bad" if chance.random() < bad else f"{chance.randint(0, 50)}" for _ in range(count)])


def _docs(texts: Sequence[str]) -> Docs:
    return codec(ENDPOINTS["/async"].input).docs(DocList[Text](Text(text=text) for text in texts))


def counts(status: Any, path: str = "") -> dict[str, float]:
    """What of the figures in `/-/status` counts things that are there now."""
    found: dict[str, float] = {}
    if isinstance(status, Mapping):
        for key, value in status.items():
            found |= counts(value, f"{path}/{key}")
    elif path.rpartition("/")[2] in ("pending", "pending_bytes", "queued", "running", "in_flight"):
        found[path] = status
    return found


def held() -> dict[str, int]:
    """What this process has: tasks of this loop, threads beside those that the loop itself keeps, descriptors."""
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


async def settled(found: Callable[[], Any], wanted: Any) -> Any:
    """What is found once it is what is wanted, or after ten seconds."""
    until = time.monotonic() + 10.0
    while (now := found()) != wanted and time.monotonic() < until:
        await asyncio.sleep(0.01)
    return now


class Killer:
    """Kills a replica now and then, while another is there; one that was killed is listed as ready a moment longer."""

    def __init__(self, served: Any, chance: random.Random, share: float) -> None:
        self._served, self._chance, self._share = served, chance, share
        self._killed = set[int]()

    def __call__(self) -> None:
        replicas = self._served.runner.status().get("replicas", {})
        ready = [one["pid"] for one in replicas.values() if one["state"] == "ready" and one["pid"] not in self._killed]
        if len(ready) > 1 and self._chance.random() < self._share:
            pid = self._chance.choice(ready)
            self._killed.add(pid)
            os.kill(pid, signal.SIGKILL)


async def crowd(place: str, way: str, *, leavings: int, seed: int, kills: float = 0.0) -> Crowds:
    """Crowds at one place over one way; all that must hold is asserted."""
    chance = random.Random(f"{place} {way} {seed}")
    async with WAYS[way](PLACES["local"]()) as ask:  # what a process begins once and keeps is there from now on
        await Crowds(ask, chance, streams=way not in WITHOUT_STREAMS).calm()
    before = held()
    async with AsyncExitStack() as life:
        served = PLACES[place]()
        ask = await life.enter_async_context(WAYS[way](served))
        crowds = Crowds(ask, chance, streams=way not in WITHOUT_STREAMS)
        await crowds.calm()
        idle = dict.fromkeys(counts(served.runner.status()), 0)  # what floats may still run
        await crowds.leave(leavings, Killer(served, chance, kills if place in IN_PROCESSES else 0.0))
        await crowds.calm()
        now = await settled(lambda: counts(served.runner.status()), idle)
        assert idle == now, f"what status() counts was {idle} and is {now}"
    gc.collect()  # what is counted here is what stays
    left = await settled(lambda: {name: count for name, count in held().items() if count > before[name]}, {})
    assert not left, f"what this process holds is more than it was: {left}, and was {before}"
    return crowds
