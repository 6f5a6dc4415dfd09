"""The most expensive answers, how each is asked for, and another client that asks meanwhile and counts what is late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import orjson
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from jina_asgi.protocols.protobuf.messages import DataRequest, SingleDocumentRequest
from jina_asgi.protocols.protobuf.node_writer import framed
from jina_asgi.protocols.size_guard import JSON, MSGPACK, PROTOBUF
from tests.faults.neighbours import LATE, Server, entry

_NO_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Found:
    """What the other client has seen."""

    def __init__(self) -> None:
        self.latest = self.held = self.held_in_pool = self.took = 0.0
        self.size = 0

    def __str__(self) -> str:
        ms = [round(1000 * value) for value in (self.held, self.held_in_pool, self.latest, self.took)]
        return (
            f"held {ms[0]:5} ms, in the replica {ms[1]:5}, latest answer {ms[2]:5}, took {ms[3]:6}, {self.size} bytes"
        )


async def _small(server: Server, http: Any, path: str = "/count") -> Any:
    answered = await http.post(path, content=b'{"data":[{"text":"a"}]}', headers={"content-type": JSON})
    assert 200 == answered.status_code
    return answered.json()["data"][0]


async def harm(server: Server, kind: str, size: int, ask: Callable[[], Awaitable[int]]) -> Found:
    """What another client sees, who asks every 20 ms, while this is answered."""
    found = Found()
    async with server.http() as http:
        prepared = b'{"data":[],"parameters":{"kind":"%s","size":%d}}' % (kind.encode(), size)
        assert 200 == (await http.post("/prepare", content=prepared, headers={"content-type": JSON})).status_code
        await _small(server, http, "/held")
        await server.looked_at()
        began = time.perf_counter()
        asked = asyncio.ensure_future(ask())
        while not asked.done():
            asks = time.perf_counter()
            assert 200 == (await http.get("/-/live")).status_code
            lived = time.perf_counter()
            assert "1" == (await _small(server, http))["text"]
            found.latest = max(found.latest, lived - asks, time.perf_counter() - lived)
            await asyncio.wait([asked], timeout=0.02)
        found.took = time.perf_counter() - began
        found.held_in_pool = (await _small(server, http, "/held"))["any"]
    found.held = (await server.looked_at())["longest"]
    found.size = asked.result()
    return found


async def _read(server: Server, path: str, kind: str, headers: dict[str, str]) -> int:
    body = b'{"data":[{"text":"%s"}],"parameters":{"kind":"%s"}}' % (kind.encode(), kind.encode())
    asked = {"content-type": JSON, **headers}
    size = 0
    async with server.http() as http, http.stream("POST", path, content=body, headers=asked) as answer:
        assert 200 == answer.status_code
        async for part in answer.aiter_raw():
            size += len(part)
    return size


def by_http(server: Server, kind: str) -> Awaitable[int]:
    return _read(server, "/answer", kind, {})


def by_msgpack(server: Server, kind: str) -> Awaitable[int]:
    return _read(server, "/answer", kind, {"accept": MSGPACK})


def by_columns(server: Server, kind: str) -> Awaitable[int]:
    return _read(server, "/answer", kind, {"accept": f"{MSGPACK}; columns=true"})


def by_protobuf(server: Server, kind: str) -> Awaitable[int]:
    return _read(server, "/answer", kind, {"accept": PROTOBUF})


def by_events(server: Server, kind: str) -> Awaitable[int]:
    return _read(server, "/steps", kind, {})


async def by_websocket(server: Server, kind: str, path: str = "/answer") -> int:
    async with connect(f"ws://127.0.0.1:{server.port}/-/ws", max_size=None, compression=None) as socket:
        call = {"id": 1, "endpoint": path, "data": [{"text": kind}], "parameters": {"kind": kind}}
        await socket.send(orjson.dumps(call), text=True)
        size = 0
        while (event := (said := await socket.recv(decode=False))[:40]).find(
            b'"event":"data"'
        ) >= 0 or b"ping" in event:
            size += len(said)
        assert b'"event":"end"' in said[:40], said[:400]
        return size


def by_websocket_steps(server: Server, kind: str) -> Awaitable[int]:
    return by_websocket(server, kind, "/steps")


def _request(kind: str) -> bytes:
    made = DataRequest()
    made.header.exec_endpoint = "/answer"
    made.parameters.update({"kind": kind})
    return bytes(made.SerializeToString())


async def by_binary_websocket(server: Server, kind: str) -> int:
    offered = [Subprotocol("bytes")]
    address = f"ws://127.0.0.1:{server.port}/"
    async with connect(address, subprotocols=offered, max_size=None, compression=None) as socket:
        await socket.send(_request(kind))
        return len(await socket.recv(decode=False))


async def by_grpc(server: Server, kind: str) -> int:
    port = (await server.looked_at())["grpc"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _NO_LIMITS) as channel:
        ask = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
        return len(await ask(_request(kind)))


async def by_grpc_stream(server: Server, kind: str) -> int:
    port = (await server.looked_at())["grpc"]
    made = SingleDocumentRequest()
    made.header.exec_endpoint = "/steps"
    made.document = entry(b"text", framed(b"\x0a", kind.encode()))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _NO_LIMITS) as channel:
        size = 0
        async for step in channel.unary_stream("/jina.JinaSingleDocumentRequestRPC/stream_doc")(
            made.SerializeToString()
        ):
            size += len(step)
        return size


WAYS: dict[str, Callable[[Server, str], Awaitable[int]]] = {
    "json": by_http,
    "msgpack": by_msgpack,
    "columns": by_columns,
    "protobuf": by_protobuf,
    "events": by_events,
    "websocket": by_websocket,
    "websocket steps": by_websocket_steps,
    "binary websocket": by_binary_websocket,
    "grpc": by_grpc,
    "grpc stream": by_grpc_stream,
}


async def answered(server: Server, way: str, kind: str, size: int) -> Found:
    """What another client sees while an answer of one kind, of so many megabytes, is asked for in one way."""
    return await harm(server, kind, size, lambda: WAYS[way](server, kind))


async def check(server: Server, way: str, kind: str, size: int) -> None:
    """Neither loop is held long meanwhile, and an answer arrives."""
    found = await answered(server, way, kind, size)
    assert found.size > 0
    assert max(found.held, found.held_in_pool) < LATE, str(found)
