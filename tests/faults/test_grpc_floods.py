"""gRPC's clients that ping, flood, reset, send junk or never read: they cost little, and the others are answered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, GRPCSidecar, Limits, requests
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.protobuf import requests as wire
from tests.faults.wire import Residue, Wire, resident

pytestmark = pytest.mark.processes

CALL = "/jina.JinaRPC/Call"
POST = "/jina.JinaSingleDataRequestRPC/process_single_data"


class Text(BaseDoc):
    text: str = ""


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.sleep(3600)
        return docs


def request(on: str, text: str = "a") -> bytes:
    docs = codec(Deployment(Echo).endpoints["/echo"].input).docs([Text(text=text)])
    return bytes(wire.request(on, docs, {}, request_id="r").SerializeToString())


@asynccontextmanager
async def served(limits: Limits | None = None) -> AsyncIterator[int]:
    async with GRPCSidecar(Deployment(Echo), limits=limits) as sidecar:
        assert sidecar.port is not None
        yield sidecar.port


async def still_right(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as one:
        assert b"after" in await one.unary_unary(POST)(request("/echo", "after"), timeout=10.0)


async def right_again(port: int) -> None:
    """grpc.aio itself, with any handler, answers CANCELLED to calls that come just behind thousands that were reset."""
    async with asyncio.timeout(10.0):
        while True:
            try:
                return await still_right(port)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    raise


async def test_a_client_that_pings_as_jinas_do_is_not_asked_to_go_away() -> None:
    """GR-02: each 9.999 s, also while nothing is asked; here each 6 s, near the most that is allowed, three times."""
    options = [("grpc.keepalive_time_ms", 6_000), ("grpc.keepalive_timeout_ms", 4_999)]
    options += [("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
    async with served() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        await channel.channel_ready()
        states = list[grpc.ChannelConnectivity]()

        async def watch() -> None:
            state = channel.get_state()
            while True:
                await channel.wait_for_state_change(state)
                state = channel.get_state()
                states.append(state)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(19.0)  # no event tells that a server has put up with a ping
        watching.cancel()
        assert states == []
        assert await channel.unary_unary(POST)(request("/echo"))


async def test_calls_that_are_cancelled_by_the_thousand_leave_nothing() -> None:
    """GR-10: each is reset a moment after it was opened."""
    async with served() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def one() -> None:
            call = channel.unary_unary(POST)(request("/wait"))
            await asyncio.sleep(0)
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call

        await asyncio.gather(*(one() for _ in range(50)))
        await asyncio.sleep(0.5)
        before = Residue.now()
        for _ in range(40):
            await asyncio.gather(*(one() for _ in range(50)))
        await Residue.settles(before)
        await right_again(port)


async def test_connections_that_come_and_are_reset_leave_nothing() -> None:
    """GR-10: before they say anything, and behind the preface of HTTP/2."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    async with served() as port:
        await still_right(port)

        async def one(said: bytes) -> None:
            async with Wire(port) as wire:
                await wire.send(said)
                wire.reset()

        await asyncio.gather(*(one(preface) for _ in range(20)))
        await asyncio.sleep(0.5)
        before = Residue.now()
        for _ in range(10):
            await asyncio.gather(*(one(said) for said in (b"", preface) for _ in range(25)))
        await Residue.settles(before)
        await still_right(port)


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-long", "y" * 100_000)],
        [(f"x-{number}", "y" * 500) for number in range(200)],
        [("x-junk-bin", os.urandom(200))],
        [("__prefetch__", "9" * 50), ("__results_in_order__", "perhaps")],
        [("grpc-timeout", "-1S")],
    ],
    ids=["one long", "many", "binary", "of Jina's", "of gRPC's"],
)
async def test_metadata_that_makes_no_sense_is_refused_or_passed_over(metadata: list[tuple[str, str | bytes]]) -> None:
    """GR-11."""
    async with served() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, TypeError):
            answer = await channel.unary_unary(POST)(request("/echo", "mine"), metadata=metadata, timeout=5.0)
            assert b"mine" in answer
        await still_right(port)


async def test_a_client_that_never_reads_its_answers_is_heard_no_further() -> None:
    """GR-12: its requests wait at its own side, and memory stays bounded; others are answered meanwhile."""
    large = request("/echo", "x" * 100_000)
    async with served() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(CALL)()
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await call.write(large)
                sent += 1

        before = resident()
        sending = asyncio.create_task(send())
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(1.0)
        await still_right(port)
        assert 0 < sent < 1000
        assert resident() - before < 256 * 2**20
        sending.cancel()
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)
