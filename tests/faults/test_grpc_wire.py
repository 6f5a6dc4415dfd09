"""gRPC's clients that frame what they like: they are refused, or cut off, at little cost; others are answered."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, GRPCSidecar, Limits, requests
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.protobuf import requests as wire
from tests.faults.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    Http2,
    frame,
    head,
    headers,
    message,
)
from tests.faults.wire import Residue, resident

pytestmark = pytest.mark.processes

POST = "/jina.JinaSingleDataRequestRPC/process_single_data"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAUTHENTICATED = "3", "8", "16"
UNREADABLE = "13"  # what gRPC itself says of metadata that it cannot read
ENHANCE_YOUR_CALM = 11
MIB = 2**20


class Text(BaseDoc):
    text: str = ""


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: DocList[Text]) -> DocList[Text]:
        return docs


def request(text: str = "a") -> bytes:
    docs = codec(Deployment(Echo).endpoints["/echo"].input).docs([Text(text=text)])
    return bytes(wire.request("/echo", docs, {}, request_id="r").SerializeToString())


async def known(headers: Mapping[str, str], endpoint: str) -> str | None:
    return "me" if headers.get("authorization") == "Bearer key" else None


@asynccontextmanager
async def served(limits: Limits | None = None, *, auth: bool = False) -> AsyncIterator[int]:
    """A server which, whatever was said to it, answers others behind it and keeps nothing."""
    async with GRPCSidecar(Deployment(Echo), limits=limits, auth=known if auth else None) as sidecar:
        assert sidecar.port is not None
        await still_right(sidecar.port)
        before = resident()
        yield sidecar.port
        await still_right(sidecar.port)
        assert resident() - before < 64 * MIB


async def still_right(port: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary(POST)(request("after"), metadata=(("authorization", "Bearer key"),), timeout=10.0)
        assert b"after" in await call


async def test_what_frames_a_call_as_it_should_is_answered() -> None:
    """The client of these tests is one, where it wants to be."""
    async with served() as port, Http2(port) as client:
        await client.send(headers(1, head(POST)), frame(DATA, END_STREAM, 1, message(request())))
        assert "0" == (await client.hear(until=1)).status()


@pytest.mark.parametrize("length", [2 * MIB, 2**30, 2**32 - 1])
async def test_a_message_that_says_it_is_large_is_refused_before_it_comes(length: int) -> None:
    """GR-04."""
    async with served(Limits(body=MIB)) as port, Http2(port) as client:
        await client.send(headers(1, head(POST)), frame(DATA, 0, 1, message(b"x" * 1000, length=length)))
        assert RESOURCE_EXHAUSTED == (await client.hear(until=1)).status()


async def test_a_message_that_becomes_a_thousand_times_as_large_is_refused_before_it_has() -> None:
    """GR-04."""
    small = gzip.compress(b"\0" * (60 * MIB))
    async with served(Limits(body=MIB)) as port, Http2(port) as client:
        start = resident()
        await client.send(headers(1, head(POST, ("grpc-encoding", "gzip"))))
        pieces = message(small, compressed=True)
        for at in range(0, len(pieces), 16_000):
            await client.send(frame(DATA, 0, 1, pieces[at : at + 16_000]))
        assert RESOURCE_EXHAUSTED == (await client.hear(until=1)).status()
        assert resident() - start < 16 * MIB


WHOLE = frame(DATA, END_STREAM, 1, message(b""))
REFUSED = {
    "a header twice": [headers(1, [*head(POST), (":path", "/other")]), WHOLE],
    "headers of a megabyte": [headers(1, head(POST, *((f"x-{n}", "y" * 1000) for n in range(1000)))), WHOLE],
    "one header of a megabyte": [headers(1, head(POST, ("x-long", "y" * MIB))), WHOLE],
    "headers without end": [
        headers(1, head(POST), whole=False),
        *[frame(CONTINUATION, 0, 1, b"\0\1x\1y") for _ in range(5000)],
    ],
    "what is no HPACK": [frame(HEADERS, END_HEADERS, 1, b"\xff" * 100)],
    "a window that does not grow": [headers(1, head(POST)), frame(WINDOW_UPDATE, 0, 1, bytes(4))],
    "a frame over its bounds": [b"\xff\xff\xff" + bytes([0, 0]) + (1).to_bytes(4) + b"x" * 20_000],
    "settings of no length": [frame(SETTINGS, 0, 0, b"\0" * 5)],
    "a ping of no length": [frame(PING, 0, 0, b"\0")],
}
#: gRPC passes over these.
BORNE = {
    "a window over its bounds": [frame(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4))] * 2,
    "a stream's id again": [headers(1, head(POST)), WHOLE, headers(1, head(POST)), WHOLE],
    "a stream's id that goes back": [headers(5, head(POST)), headers(3, head(POST))],
    "data of no stream": [frame(DATA, 0, 9, b"x" * 100)],
    "a server's stream": [headers(2, head(POST))],
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_breaks_http2_ends_its_call_or_its_connection_alone(what: str) -> None:
    """GR-09."""
    async with served() as port, Http2(port) as client:
        await client.send(*REFUSED[what])
        heard = await client.hear(until=1)
        assert heard.closed or heard.was_reset or heard.status() not in (None, "0"), heard


@pytest.mark.parametrize("what", BORNE)
async def test_what_bends_http2_costs_others_nothing(what: str) -> None:
    """GR-09."""
    async with served() as port, Http2(port) as client:
        await client.send(*BORNE[what] * 100)
        await still_right(port)


async def test_more_data_than_it_may_costs_others_nothing() -> None:
    """GR-09: how much a window holds is gRPC's to say, as it goes; what it takes from one call is bounded."""
    async with served() as port, Http2(port) as client:
        await client.send(headers(1, head(POST)), *[frame(DATA, 0, 1, b"\0" * 16_384)] * 600)
        await still_right(port)


async def test_an_unknown_frame_is_ignored() -> None:
    """GR-09: as HTTP/2 wants it."""
    async with served() as port, Http2(port) as client:
        await client.send(*[frame(0xEE, 0xFF, 0, b"x" * 100)] * 100)
        await client.send(headers(1, head(POST)), frame(DATA, END_STREAM, 1, message(request())))
        assert "0" == (await client.hear(until=1)).status()


async def test_who_pings_all_the_time_is_asked_to_be_calm() -> None:
    """GR-02, GR-10: ten thousand, where a Jina client sends one each 9.999 s; processor time ends with them."""
    async with served() as port:
        before = Residue.now()
        async with Http2(port) as client:
            await client.send(*[frame(PING, 0, 0, bytes(8))] * 10_000)
            assert ENHANCE_YOUR_CALM == (await client.hear()).goaway
        await Residue.settles(before)
        used = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - used < 0.5


SECRET = "SECRET-a-token"
ODD: dict[str, tuple[str | bytes, str | bytes]] = {
    "not ASCII": ("authorization", f"Bearer {SECRET} ö".encode()),
    "a new line": ("authorization", f"Bearer {SECRET}\r\nx-more: 1"),
    "nothing but zeros": ("authorization", SECRET.encode() + b"\0" * 20),
    "junk for bytes": ("authorization-bin", f"{SECRET}!!!"),
    "nine thousand letters": ("authorization", SECRET * 650),
}


@pytest.mark.parametrize("what", ODD)
async def test_odd_credentials_are_refused_and_stand_in_no_log(
    what: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """GR-11."""
    caplog.set_level("DEBUG")
    caplog.set_level("WARNING", logger="hpack")  # the client's
    async with served(auth=True) as port, Http2(port) as client:
        await client.send(headers(1, head(POST, ODD[what])), frame(DATA, END_STREAM, 1, message(request())))
        heard = await client.hear(until=1)
        assert heard.closed or heard.was_reset or heard.status() in (UNAUTHENTICATED, UNREADABLE), heard
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "method",
    [
        POST,
        "/jina.JinaRPC/Call",
        "/jina.JinaDataRequestRPC/process_data",
        "/jina.JinaSingleDocumentRequestRPC/stream_doc",
        "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery",
        "/jina.JinaInfoRPC/_status",
    ],
)
async def test_who_is_unknown_is_refused_before_a_message_is_read(method: str) -> None:
    """GR-11: none has been sent."""
    async with served(auth=True) as port, Http2(port) as client:
        await client.send(headers(1, head(method, ("authorization", "Bearer other"))))
        assert UNAUTHENTICATED == (await client.hear(until=1)).status()


async def test_who_is_known_and_sends_no_message_gets_an_error() -> None:
    async with served(auth=True) as port, Http2(port) as client:
        await client.send(headers(1, head(POST, ("authorization", "Bearer key")), ends=True))
        assert INVALID_ARGUMENT == (await client.hear(until=1)).status()
