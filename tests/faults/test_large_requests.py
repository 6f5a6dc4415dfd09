"""While a large request is read others are answered, however it came: its reading waits here until one has been.

What C reads at one go lets nobody in, and is not looked at here.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx
import msgspec
import orjson
import pytest
from docarray import BaseDoc, DocList
from pydantic import field_validator

from jina_asgi import Deployment, Executor, JinaASGI, requests
from jina_asgi.concurrency.offload import LARGE
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.protobuf import requests as wire
from jina_asgi.protocols.protobuf.messages import DataRequest, DataRequestList, SingleDocumentRequest
from jina_asgi.protocols.websocket.asgi_transport import connected

pytestmark = pytest.mark.processes

LONG = "a" * LARGE
begun, answered = threading.Event(), threading.Event()


class Text(BaseDoc):
    text: str = ""

    @field_validator("text")
    @classmethod
    def _waits(cls, text: str) -> str:
        if len(text) == LARGE:
            begun.set()
            assert answered.wait(10), "nobody else was answered while this was read"
        return text


class Lengths(Executor):
    @requests(on="/length")
    async def length(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(text=str(len(doc.text))) for doc in docs])

    @requests(on="/steps")
    async def steps(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield Text(text=str(len(doc.text)))


SCHEMA = codec(Deployment(Lengths).endpoints["/length"].input)
DOCS = SCHEMA.docs([Text.model_construct(text=LONG)])
BODY = {"data": [{"text": LONG}]}


class Served:
    """One application, over HTTP, its WebSockets, and gRPC."""

    def __init__(self, http: httpx.AsyncClient, channel: grpc.aio.Channel, asgi: JinaASGI) -> None:
        self.http, self.channel, self.asgi = http, channel, asgi

    async def posted(self, path: str, content: bytes, media: str = "application/json") -> bytes:
        return (await self.http.post(path, content=content, headers={"content-type": media})).content

    async def unary(self, method: str, message: Any) -> bytes:
        return bytes(await self.channel.unary_unary(f"/jina.{method}")(message.SerializeToString()))

    async def streamed(self, method: str, message: Any) -> bytes:
        return b"".join([part async for part in self.channel.unary_stream(f"/jina.{method}")(message)])

    async def conversed(self, message: Any) -> bytes:
        return b"".join([part async for part in self.channel.stream_stream("/jina.JinaRPC/Call")(iter([message]))])


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    asgi = JinaASGI(Deployment(Lengths), grpc="127.0.0.1:0", wait_ready=True)
    options = [("grpc.max_send_message_length", -1)]
    async with asgi.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://test") as http:
        assert asgi.sidecar is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{asgi.sidecar.port}", options) as channel:
            yield Served(http, channel, asgi)


def request(on: str = "/length") -> Any:
    return wire.request(on, DOCS, {}, request_id="r")


async def over_http(served: Served) -> bytes:
    return await served.posted("/length", orjson.dumps(BODY))


async def over_http_in_msgpack(served: Served) -> bytes:
    return await served.posted("/length", msgspec.msgpack.encode(BODY), "application/msgpack")


async def over_http_in_protobuf(served: Served) -> bytes:
    return await served.posted("/length", request().SerializeToString(), "application/x-protobuf")


async def by_post(served: Served) -> bytes:
    return await served.posted("/post", orjson.dumps({**BODY, "exec_endpoint": "/length"}))


async def as_a_get_of_a_stream(served: Served) -> bytes:
    content = orjson.dumps({"text": LONG})
    return (
        await served.http.request("GET", "/steps", content=content, headers={"content-type": "application/json"})
    ).content


async def over_a_websocket(served: Served) -> bytes:
    async with connected(served.asgi, "/-/ws") as socket:
        await socket.send({"id": 1, "endpoint": "/length", **BODY})
        return orjson.dumps(await socket.receive())


async def over_grpc(served: Served) -> bytes:
    return await served.unary("JinaSingleDataRequestRPC/process_single_data", request())


async def over_grpc_in_a_stream(served: Served) -> bytes:
    return await served.conversed(request().SerializeToString())


async def over_grpc_from_two_nodes(served: Served) -> bytes:
    small = wire.request("/length", SCHEMA.docs([Text(text="b")]), {}, request_id="r")
    parts = [DataRequest.FromString(one.SerializeToString()) for one in (request(), small)]
    return await served.unary("JinaDataRequestRPC/process_data", DataRequestList(requests=parts))


async def over_grpc_for_a_stream(served: Served) -> bytes:
    message = wire.single("/steps", DOCS, {}, request_id="r")
    assert isinstance(message, SingleDocumentRequest)
    return await served.streamed("JinaSingleDocumentRequestRPC/stream_doc", message.SerializeToString())


WAYS: list[Callable[[Served], Awaitable[bytes]]] = [
    over_http,
    over_http_in_msgpack,
    over_http_in_protobuf,
    by_post,
    as_a_get_of_a_stream,
    over_a_websocket,
    over_grpc,
    over_grpc_in_a_stream,
    over_grpc_from_two_nodes,
    over_grpc_for_a_stream,
]


@pytest.mark.parametrize("ask", WAYS, ids=lambda way: way.__name__)
async def test_others_are_answered_while_a_large_request_is_read(
    served: Served, ask: Callable[[Served], Awaitable[bytes]]
) -> None:
    begun.clear()
    answered.clear()
    large = asyncio.ensure_future(ask(served))
    assert await asyncio.to_thread(begun.wait, 10)
    small = await served.http.post("/length", json={"data": [{"text": "abc"}]})
    assert "3" == small.json()["data"][0]["text"]
    answered.set()
    assert str(LARGE).encode() in await large
