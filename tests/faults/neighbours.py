"""The most expensive requests that are allowed, how each is sent, and one who asks meanwhile and counts what is late."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import msgspec
import orjson
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.protocols.protobuf.node_writer import framed
from jina_asgi.protocols.size_guard import JSON, MAPPING, MSGPACK, NUMBERS, PROTOBUF
from jina_asgi.settings import Limits

LIMITS = Limits()
VALUES, NUMBER, MAPPINGS = LIMITS.values - 99, NUMBERS * LIMITS.values - 99, LIMITS.values // MAPPING - 99
#: Seconds for which an answer may be late, and bytes that one request may take.
LATE, ROOM = 0.25, 4 * (LIMITS.body + 8 * NUMBERS * LIMITS.values + 64 * LIMITS.values)


def listed(item: bytes, count: int) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


def keys() -> bytes:
    return b",".join([b'"k%d":%d' % (number, number) for number in range(VALUES)])


#: What a document holds, asked of `/count`.
DOCUMENTS: dict[str, Callable[[], bytes]] = {
    "empty lists": lambda: b'"any":%s' % listed(b"[]", VALUES),
    "empty mappings": lambda: b'"any":%s' % listed(b"{}", MAPPINGS),
    "keys": lambda: b'"any":{%s}' % keys(),
    "keys of a field": lambda: b'"pairs":{%s}' % keys(),
    "keys that are no field's": keys,
    "wrong items": lambda: b'"texts":%s' % listed(b"0", NUMBER),
    "wrong items of a union": lambda: b'"either":%s' % listed(b'"x"', VALUES),
    "items of a union": lambda: b'"either":%s' % listed(b"[]", VALUES),
    "documents": lambda: b'"parts":%s' % listed(b"{}", MAPPINGS),
    "objects": lambda: b'"kids":%s' % listed(b"{}", MAPPINGS),
    "a long text": lambda: b'"text":"%s"' % (b"a" * 60_000_000),
    "a long text with escapes": lambda: b'"text":"%s"' % (b"\\n" * 30_000_000),
    "a long text of other letters": lambda: b'"text":"%s"' % ("ж".encode() * 30_000_000),
    "small numbers": lambda: b'"numbers":%s' % listed(b"300", NUMBER),
}
#: The same, asked of `/vectors`.
VECTORS: dict[str, Callable[[], bytes]] = {
    "numbers of a tensor": lambda: b'"vector":%s' % listed(b"0.1234567", NUMBER),
    "rows of a tensor": lambda: b'"vector":%s' % listed(listed(b"0.1234567", 30), NUMBER // 31),
    "a tensor with a text at its end": lambda: b'"vector":[%s,"a"]' % listed(b"0.1", NUMBER)[1:-1],
}
OTHERS: dict[str, Callable[[], bytes]] = {
    "parameters": lambda: b'{"data":[],"parameters":{"x":%s}}' % listed(b"[]", LIMITS.parameters - 9),
    "far too many values": lambda: b'{"data":[],"parameters":{"x":%s}}' % listed(b"[]", 20_000_000),
    "wrong documents": lambda: b'{"data":%s}' % listed(b'{"text":1,"either":["a"]}', 9999),
}


def body(name: str) -> tuple[str, bytes]:
    """The endpoint and the JSON of each."""
    if name in OTHERS:
        return "/count", OTHERS[name]()
    if name in VECTORS:
        return "/vectors", b'{"data":{%s}}' % VECTORS[name]()
    return "/echo" if name == "a long text" else "/count", b'{"data":{%s}}' % DOCUMENTS[name]()


def entry(name: bytes, value: bytes) -> bytes:
    return framed(b"\x0a", framed(b"\x0a", name) + framed(b"\x12", value))


def named(number: int) -> bytes:
    """An entry of a dictionary, whose value is a number."""
    return entry(b"k%d" % number, b"\x10\x01")


def request(doc: bytes = b"", parameters: bytes = b"", behind: bytes = b"") -> bytes:
    """A DataRequest to `/count` of one document, with `behind` after it."""
    made = DataRequest()
    made.header.exec_endpoint = "/count"
    made.data.docs = framed(b"\x0a", doc) + behind
    raw: bytes = made.SerializeToString()
    return raw + (framed(b"\x12", parameters) if parameters else b"")


MESSAGES: dict[str, Callable[[], bytes]] = {
    "documents": lambda: request(entry(b"parts", framed(b"\x42", b"\x0a\x00" * MAPPINGS))),
    "empty values": lambda: request(entry(b"texts", framed(b"\x4a", b"\x0a\x00" * (8 * VALUES)))),
    "empty values and an unknown field": lambda: request(
        entry(b"texts", framed(b"\x4a", b"\x0a\x00" * (8 * VALUES))), behind=b"\x10\x01"
    ),
    "keys": lambda: request(entry(b"any", framed(b"\x62", b"".join(map(named, range(VALUES)))))),
    "a long text": lambda: request(entry(b"text", framed(b"\x0a", b"a" * 60_000_000))),
    "a long text of other letters": lambda: request(entry(b"text", framed(b"\x0a", "ж".encode() * 30_000_000))),
    "far too many values": lambda: request(entry(b"texts", framed(b"\x4a", b"\x0a\x00" * 30_000_000))),
    "parameters": lambda: request(
        parameters=entry(b"x", framed(b"\x32", b"\x0a\x02\x32\x00" * (LIMITS.parameters - 9)))
    ),
}


class Server:
    """One application in a process of its own, over all protocols; each client is of the test's own loop."""

    def __init__(self, port: int) -> None:
        self.port = port

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=120)

    async def post(self, path: str, body: bytes, media: str) -> int:
        async with self.http() as http:
            return (await http.post(path, content=body, headers={"content-type": media})).status_code

    async def looked_at(self) -> dict[str, Any]:
        async with self.http() as http:
            found: dict[str, Any] = (await http.get("/holds")).json()
        return found

    async def harm(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What is answered, while another asks every 20 ms; each of its answers arrives."""
        await self.looked_at()
        asked = asyncio.ensure_future(ask())
        async with self.http() as http:
            while not asked.done():
                assert 200 == (await http.get("/-/live")).status_code
                small = await http.post("/count", content=b'{"data":[{"text":"a"}]}', headers={"content-type": JSON})
                assert "1" == small.json()["data"][0]["text"]
                await asyncio.wait([asked], timeout=0.02)
        found = await self.looked_at()
        assert found["longest"] < LATE, f"the loop was held for {found['longest']:.3f} s"
        assert found["grown"] < ROOM, f"{found['grown']} bytes were taken"
        return asked.result()


@contextmanager
def served(place: str = "requests") -> Iterator[Server]:
    """One server, until its standard input ends."""
    command = [sys.executable, "-m", "tests.faults.neighbour_server", place]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        yield Server(int(process.stdout.readline()))
    assert 0 == process.wait(30)


@contextmanager
def served_elsewhere(protocol: str, place: str = "requests") -> Iterator[Server]:
    """One server that asks another one over a protocol."""
    with served(place) as there:
        holds = httpx.get(f"http://127.0.0.1:{there.port}/holds").json()
        port = holds["grpc"] if protocol == "grpc" else there.port
        with served(f"over {protocol}://127.0.0.1:{port}") as server:
            yield server


async def by_json(server: Server, name: str) -> None:
    path, raw = body(name)
    assert await server.harm(lambda: server.post(path, raw, JSON)) in (200, 413, 422)


async def by_msgpack(server: Server, name: str) -> None:
    path, raw = body(name)
    packed = msgspec.msgpack.encode(orjson.loads(raw))
    del raw
    assert await server.harm(lambda: server.post(path, packed, MSGPACK)) in (200, 413, 422)


async def by_websocket(server: Server, name: str) -> None:
    path, raw = body(name)

    async def ask() -> Any:
        async with connect(f"ws://127.0.0.1:{server.port}/-/ws", max_size=None) as socket:
            await socket.send(b'{"id":1,"endpoint":"%s",%s' % (path.encode(), raw[1:]), text=True)
            while (answered := orjson.loads(await socket.recv()))["event"] == "ping":
                pass
            assert 1 == answered["id"]
            return answered["event"]

    assert await server.harm(ask) in ("data", "error")


async def by_packed_websocket(server: Server, name: str) -> None:
    path, raw = body(name)
    packed = msgspec.msgpack.encode({**orjson.loads(raw), "endpoint": path, "id": 1})
    del raw

    async def ask() -> Any:
        async with connect(f"ws://127.0.0.1:{server.port}/-/ws", max_size=None) as socket:
            await socket.send(packed)
            while isinstance(event := await socket.recv(), str):
                assert "ping" in event
            answered = msgspec.msgpack.decode(event)
            assert 1 == answered["id"]
            return answered["event"]

    assert await server.harm(ask) in ("data", "error")


async def by_form(server: Server, name: str) -> None:
    """The text of a document as a field of a form, or the document as JSON."""
    path, raw = body(name)
    value, field = (raw[17:-3], b"text") if name.startswith("a long text") else (raw[8:-1], b"data")
    form = b'--a\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n--a--\r\n' % (field, value)
    del raw, value
    assert await server.harm(lambda: server.post(path, form, "multipart/form-data; boundary=a")) in (200, 413, 422)


async def by_protobuf(server: Server, name: str) -> None:
    raw = MESSAGES[name]()
    assert await server.harm(lambda: server.post("/count", raw, PROTOBUF)) in (200, 413, 422)


async def by_binary_websocket(server: Server, name: str) -> None:
    raw = MESSAGES[name]()

    async def ask() -> bytes:
        offered = [Subprotocol("bytes")]
        async with connect(f"ws://127.0.0.1:{server.port}/", subprotocols=offered, max_size=None) as socket:
            await socket.send(raw)
            return await socket.recv(decode=False)

    assert DataRequest.FromString(await server.harm(ask)).ByteSize()


async def by_grpc(server: Server, name: str) -> None:
    raw, port = MESSAGES[name](), (await server.looked_at())["grpc"]
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

    async def ask() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            asked = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")(raw)
            code: grpc.StatusCode = await asked.code()
            return code

    assert await server.harm(ask) in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)


async def by_many_calls(server: Server, count: str) -> None:
    """Many small calls on one socket, as fast as they can be sent; each is answered."""

    async def ask() -> int:
        async with connect(f"ws://127.0.0.1:{server.port}/-/ws") as socket:

            async def send() -> None:
                for number in range(int(count)):
                    await socket.send(b'{"id":%d,"endpoint":"/count","data":[{"text":"a"}]}' % number, text=True)

            sending = asyncio.ensure_future(send())
            ends = 0
            while ends < int(count):
                ends += orjson.loads(await socket.recv())["event"] in ("end", "error")
            await sending
            return ends

    assert int(count) == await server.harm(ask)


#: How each of which is sent.
WAYS: dict[Callable[[Server, str], Awaitable[None]], list[str]] = {
    by_json: [*DOCUMENTS, *VECTORS, *OTHERS],
    by_msgpack: [*DOCUMENTS, *VECTORS, "parameters", "far too many values", "wrong documents"],
    by_websocket: [*DOCUMENTS, *VECTORS, *OTHERS],
    by_packed_websocket: [*DOCUMENTS, *VECTORS, "parameters", "far too many values"],
    by_form: [*DOCUMENTS],
    by_protobuf: [*MESSAGES],
    by_binary_websocket: [*MESSAGES],
    by_grpc: [*MESSAGES],
    by_many_calls: ["20000"],
}
