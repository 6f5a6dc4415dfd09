"""Messages that cost much, streams that wait for themselves, and what an Executor should never raise: one outcome each."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, GRPCSidecar, InvalidRequest, Limits, TooLarge, requests
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.protobuf import requests as wire
from jina_asgi.protocols.protobuf.documents import wire as docs_wire
from jina_asgi.protocols.protobuf.messages import DataRequest, DataRequestList, SingleDocumentRequest
from jina_asgi.protocols.protobuf.node_writer import framed, varint
from jina_asgi.protocols.protobuf.size_guard import check_docs

pytestmark = pytest.mark.processes

CALL = "/jina.JinaRPC/Call"
POST = "/jina.JinaSingleDataRequestRPC/process_single_data"
JOIN = "/jina.JinaDataRequestRPC/process_data"
STREAM = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
IN_ORDER = (("__results_in_order__", "true"),)


class Text(BaseDoc):
    text: str = ""
    number: float = 0.0


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Odd(Executor):
    """Raises what it is asked for."""

    raised: Mapping[str, BaseException] = {
        "GeneratorExit": GeneratorExit(),
        "Unspeakable": Unspeakable(),
        "ValueError": ValueError("half a pair: \ud800"),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError(),
        "StopIteration": StopIteration(),
    }

    @requests(on="/echo")
    async def echo(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/raise")
    async def fail(self, docs: DocList[Text]) -> DocList[Text]:
        raise self.raised[docs[0].text]

    @requests(on="/steps")
    async def steps(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield doc
        raise self.raised[doc.text]


CODEC = codec(Deployment(Odd).endpoints["/echo"].input)


def request(on: str, text: str = "a") -> bytes:
    return bytes(wire.request(on, CODEC.docs([Text(text=text)]), {}, request_id="r").SerializeToString())


@asynccontextmanager
async def served(source: Any = None, **options: Any) -> AsyncIterator[grpc.aio.Channel]:
    async with GRPCSidecar(source or Deployment(Odd), **options) as sidecar:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{sidecar.port}") as channel:
            yield channel


def with_data(docs: bytes) -> bytes:
    return framed(b"\x22", framed(b"\x0a", docs))


@pytest.mark.parametrize("cut", range(1, 21))
def test_a_document_that_ends_within_an_entry_like_one_before_is_no_document(cut: int) -> None:
    reader = docs_wire(codec(Deployment(Odd).endpoints["/echo"].input))
    whole = reader.write_doc(Text(id="a" * 32, text="b", number=2.5))
    assert [2.5] == [doc.number for doc in reader.read(framed(b"\x0a", whole), Limits())]
    with pytest.raises(InvalidRequest, match="not protobuf"):
        reader.read(framed(b"\x0a", whole[:-cut]), Limits())


COSTLY = {
    "millions of empty data": b"\x22\x00" * 10_000_000,
    "millions of routes": b"\x1a\x00" * 1_000_000,
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_would_cost_seconds_to_take_apart_is_refused(name: str) -> None:
    with pytest.raises(TooLarge):
        wire.docs(wire.fields_of(wire.read(COSTLY[name])), CODEC, Limits())


MANY = {
    "entries of a document": framed(b"\x0a", b"\x0a\x06\x0a\x00\x12\x02\x10\x00" * 100_000),
    "fields beside the docs": b"\x1a" + varint(70_000) + b"\x0a" * 70_000 + b"\x10\x00" * 300_000,
}


@pytest.mark.parametrize("name", MANY)
def test_values_are_counted_and_so_is_what_is_passed_on_the_way(name: str) -> None:
    check_docs(MANY[name], Limits(values=2**17))
    with pytest.raises(TooLarge):
        check_docs(MANY[name], Limits(values=2**13))


def test_a_document_of_very_many_entries_is_read_as_protobuf_reads_it() -> None:
    entry = framed(b"\x0a", framed(b"\x0a", b"text") + framed(b"\x12", framed(b"\x0a", b"bc")))
    started = time.process_time()
    (doc,) = docs_wire(CODEC).read(framed(b"\x0a", entry * 500_000), Limits())
    assert "bc" == doc.text
    assert time.process_time() - started < 10.0


@pytest.mark.parametrize("count", [2_000, 2_000_000])
def test_too_many_requests_at_a_join_are_refused_before_there_are_messages_of_them(count: int) -> None:
    with pytest.raises(TooLarge, match="requests that meet at a join"):
        wire.read(b"\x0a\x00" * count, DataRequestList)


async def test_the_docs_of_all_that_meet_at_a_join_are_those_of_one_request() -> None:
    part = DataRequest.FromString(request("/echo"))
    part.data.docs = b"\x0a\x00" * 900
    async with served(limits=Limits(docs=1000)) as channel:
        for parts, code in ((1, grpc.StatusCode.OK), (2, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            call = channel.unary_unary(JOIN)(DataRequestList(requests=[part] * parts).SerializeToString())
            assert code is await call.code()


def test_long_names_of_endpoints_are_not_kept() -> None:
    tracemalloc.start()
    try:
        for number in range(100):
            message = DataRequest()
            message.header.exec_endpoint = f"/{number}" + "x" * 1_000_000
            assert "/default" == wire.fields_of(message).endpoint
        assert tracemalloc.get_traced_memory()[0] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wanted", ["9" * 5000, "-1", "0", "x", "3"])
async def test_how_much_a_client_wants_ahead_is_taken_or_left(wanted: str) -> None:
    async with served() as channel:
        call = channel.stream_stream(CALL)(iter([request("/echo")] * 5), metadata=(("__prefetch__", wanted),))
        assert [0] * 5 == [DataRequest.FromString(raw).header.status.code async for raw in call]


@pytest.mark.parametrize("expose", [False, True])
@pytest.mark.parametrize("name", Odd.raised)
async def test_whatever_an_executor_raises_is_its_own_error_in_the_answer(
    name: str, expose: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="jina_asgi")  # half a pair in a report of the tests crosses to no other process
    single = wire.single("/steps", CODEC.docs([Text(text=name)]), {}, request_id="r").SerializeToString()
    async with served(expose_errors=expose) as channel, asyncio.timeout(10):
        answers = [DataRequest.FromString(await channel.unary_unary(POST)(request("/raise", name)))]
        answers += [SingleDocumentRequest.FromString(raw) async for raw in channel.unary_stream(STREAM)(single)][1:]
    assert 2 == len(answers)
    for answer in answers:
        told = answer.header.status
        assert 1 == told.code
        assert expose or "ExecutorError" == told.exception.name
        assert expose == bool(told.exception.stacks)


class Deep(Executor):
    @requests(on="/deep")
    async def deep(self, docs: DocList[Text], parameters: dict[str, Any]) -> dict[str, Any]:
        return nested(int(parameters["levels"]))


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(("levels", "code"), [(25, 0), (40, 1), (200, 1)])
async def test_results_that_no_protobuf_could_read_are_reported(levels: int, code: int) -> None:
    asked = wire.request("/deep", CODEC.docs([Text()]), {"levels": levels}, request_id="r").SerializeToString()
    async with served(Deployment(Deep), expose_errors=True) as channel:
        told = DataRequest.FromString(await channel.unary_unary(POST)(asked)).header.status
    assert code == told.code
    assert code == 0 or "32 levels" in told.description


class Slow(Executor):
    """Begins to answer, and answers when it is told to."""

    begun: asyncio.Event
    go: asyncio.Event

    @requests(on="/slow")
    async def slow(self, docs: DocList[Text]) -> DocList[Text]:
        self.begun.set()
        await self.go.wait()
        return docs


async def test_a_stream_in_order_does_not_wait_for_itself() -> None:
    """Its first request finds the queue full and its second finds a place: that may be the place the first waits for."""
    Slow.begun, Slow.go, last, asked = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    askers = iter("other first second".split())

    async def auth(headers: Mapping[str, str], endpoint: str) -> str:
        who = "anybody" if endpoint == "/post" else next(askers, "first, again")  # before a message is read, and after
        if who == "second":
            asked.set()
            await last.wait()
        elif who == "first":
            await asked.wait()
        return who

    async with served(Deployment(Slow, max_queue=1), auth=auth) as channel, asyncio.timeout(20):
        other = channel.unary_unary(POST)(request("/slow"))
        await Slow.begun.wait()
        texts = ["one", "two"]
        call = channel.stream_stream(CALL)(iter([request("/slow", text) for text in texts]), metadata=IN_ORDER)
        await asked.wait()  # the first has been refused by now
        Slow.go.set()
        assert await other
        last.set()
        got = [DataRequest.FromString(raw) async for raw in call]
    assert [True, True] == [text.encode() in answer.data.docs for text, answer in zip(texts, got, strict=True)]


async def test_what_comes_after_a_request_that_is_refused_is_not_answered_in_its_place() -> None:
    """In order the client knows an answer by its place: where one is missing the stream ends."""
    Slow.begun, Slow.go = asyncio.Event(), asyncio.Event()
    askers, last = iter("other first second".split()), asyncio.Event()

    async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
        who = "anybody" if endpoint == "/post" else next(askers)
        if who == "first":
            await last.wait()
            return None
        return who

    async with served(Deployment(Slow), auth=auth) as channel, asyncio.timeout(20):
        Slow.go.set()
        assert await channel.unary_unary(POST)(request("/slow"))
        Slow.begun.clear()
        call = channel.stream_stream(CALL)(iter([request("/slow"), request("/slow", "two")]), metadata=IN_ORDER)
        await Slow.begun.wait()
        last.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()
