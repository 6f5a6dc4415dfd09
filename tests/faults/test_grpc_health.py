"""What gRPC says of its health while it loads, drains, loses its replica and comes back; and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, GRPCSidecar, requests
from jina_asgi.documents.codec import codec
from jina_asgi.protocols.grpc.discovery import NOT_SERVING, SERVING, HealthRequest, HealthResponse
from jina_asgi.protocols.grpc.services import SERVICES
from jina_asgi.protocols.protobuf import requests as wire
from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.runners.wrappers import Wrapper
from tests.doubles.rig import LOCAL, Served
from tests.doubles.uvicorn_server import free_port

pytestmark = pytest.mark.processes

CALL, POST = "/jina.JinaRPC/Call", "/jina.JinaSingleDataRequestRPC/process_single_data"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
NAMES = ("", *SERVICES)


class Text(BaseDoc):
    text: str = ""


class Model(Executor):
    def __init__(self, go: threading.Event | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert go is None or go.wait(30.0)

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.sleep(float(docs[0].text))
        return docs


def request(on: str, text: str) -> bytes:
    docs = codec(Deployment(Model).endpoints["/wait"].input).docs([Text(text=text)])
    return bytes(wire.request(on, docs, {}, request_id="r").SerializeToString())


class Doctor:
    """Watches the health of every service, and asks for it beside that."""

    def __init__(self, channel: grpc.aio.Channel, port: int) -> None:
        self._check, self._port = channel.unary_unary(CHECK), port
        asked = [HealthRequest(service=name).SerializeToString() for name in NAMES]
        self._watches = [channel.unary_stream(WATCH)(one) for one in asked]

    async def hears(self, status: int, *, within: float) -> None:
        """Every watch says so next."""
        async with asyncio.timeout(within):
            said = await asyncio.gather(*(watch.read() for watch in self._watches))
        assert [status] * len(NAMES) == [HealthResponse.FromString(one).status for one in said]

    async def is_told(self, status: int) -> None:
        """Whoever asks is told so, and the command too, by its exit code."""
        asked = [HealthRequest(service=name).SerializeToString() for name in NAMES]
        said = await asyncio.gather(*(self._check(one) for one in asked))
        assert [status] * len(NAMES) == [HealthResponse.FromString(one).status for one in said]
        assert (0 if status == SERVING else 1) == await asyncio.to_thread(pinged, self._port)

    async def hears_the_end(self) -> None:
        async with asyncio.timeout(1.0):
            for watch in self._watches:
                assert grpc.aio.EOF is await watch.read()


def pinged(port: int) -> int:
    command = [sys.executable, "-m", "jina_asgi", "ping", "executor", f"{LOCAL}:{port}", "--attempts", "1"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


@asynccontextmanager
async def watched(port: int | None) -> AsyncIterator[Doctor]:
    assert port is not None
    async with grpc.aio.insecure_channel(f"{LOCAL}:{port}") as channel:
        yield Doctor(channel, port)


async def test_health_is_reported_while_it_loads_and_once_it_has_loaded() -> None:
    """GR-06."""
    go = threading.Event()
    async with GRPCSidecar(Deployment(Model, uses_with={"go": go}), wait_ready=False) as sidecar:
        async with watched(sidecar.port) as doctor:
            await doctor.hears(NOT_SERVING, within=5.0)
            await doctor.is_told(NOT_SERVING)
            go.set()
            await doctor.hears(SERVING, within=1.0)
            await doctor.is_told(SERVING)


async def test_health_is_reported_when_it_begins_to_drain_and_not_when_it_has() -> None:
    """GR-06, GR-07."""
    async with AsyncExitStack() as clients:
        async with GRPCSidecar(Deployment(Model)) as sidecar:
            doctor = await clients.enter_async_context(watched(sidecar.port))
            await doctor.hears(SERVING, within=5.0)
            channel = await clients.enter_async_context(grpc.aio.insecure_channel(f"{LOCAL}:{sidecar.port}"))
            call = channel.unary_unary(POST)(request("/wait", "3"))
            await call.wait_for_connection()
            await asyncio.sleep(0.2)  # until it runs: nobody tells

            async def hears() -> float:
                await doctor.hears(NOT_SERVING, within=10.0)
                return time.monotonic()

            hearing, start = asyncio.create_task(hears()), time.monotonic()
        assert await hearing - start < 1.0
        assert 0 == DataRequest.FromString(await call).header.status.code
        await doctor.hears_the_end()


async def test_health_is_reported_when_the_only_replica_dies_and_when_it_is_back() -> None:
    """GR-06."""
    deployment = Deployment("tests.doubles.pooled_model.Model", name="lm", replicas=1, placement="pool")
    async with GRPCSidecar(deployment) as sidecar, watched(sidecar.port) as doctor:
        await doctor.hears(SERVING, within=5.0)
        await doctor.is_told(SERVING)
        os.kill(Wrapper(deployment.runner).status()["replicas"]["lm/rep-0"]["pid"], signal.SIGKILL)
        await doctor.hears(NOT_SERVING, within=1.0)
        await doctor.hears(SERVING, within=30.0)
        await doctor.is_told(SERVING)


class Ill(Model):
    is_well = True

    def health(self) -> bool:
        return type(self).is_well


async def test_health_is_reported_when_the_executor_says_that_it_is_ill_and_when_it_is_well() -> None:
    async with GRPCSidecar(Deployment(Ill), wait_ready=True) as sidecar, watched(sidecar.port) as doctor:
        await doctor.hears(SERVING, within=5.0)
        for is_well, status in ((False, NOT_SERVING), (True, SERVING)):
            Ill.is_well = is_well
            await doctor.hears(status, within=10.0)  # it is asked once a second
            await doctor.is_told(status)


APP = """
import asyncio
from docarray import BaseDoc, DocList
from jina_asgi import Deployment, Executor, JinaASGI, requests

class Text(BaseDoc):
    text: str = ""

class Model(Executor):
    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        print("began", docs[0].text, flush=True)
        await asyncio.sleep(float(docs[0].text))
        return docs

asgi = JinaASGI(Deployment(Model), grpc="127.0.0.1:{port}")
"""


async def test_a_signal_lets_calls_end_and_is_not_held_up_by_who_is_connected(tmp_path: Path) -> None:
    """GR-07: one call, one stream that stays open, a hundred idle channels."""
    port = free_port()
    (tmp_path / "app.py").write_text(APP.replace("{port}", str(port)))
    words = ["gunicorn", "-c", "python:jina_asgi.gunicorn", "-b", f"{LOCAL}:0", "--chdir", str(tmp_path), "app:asgi"]
    local = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Served("gunicorn-uvicorn", "", command=words))
        await asyncio.to_thread(server.logged, "startup complete")
        idle = [grpc.aio.insecure_channel(f"{LOCAL}:{port}", options=local) for _ in range(100)]
        for channel in idle:
            await stack.enter_async_context(channel)
        await asyncio.gather(*(channel.channel_ready() for channel in idle))
        stream = idle[0].stream_stream(CALL)()
        await stream.write(request("/wait", "0"))
        await stream.read()
        call = idle[1].unary_unary(POST)(request("/wait", "1.5"))
        await call.wait_for_connection()
        await asyncio.to_thread(server.logged, r"began 1\.5")
        start = time.monotonic()
        server.signal(signal.SIGTERM)
        assert 0 == DataRequest.FromString(await call).header.status.code
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await stream.read()
        assert grpc.StatusCode.UNAVAILABLE is ended.value.code()
        assert 0 == await asyncio.to_thread(lambda: server.ended(within=10.0))
        assert time.monotonic() - start < 8.0, server.log
        states = {channel.get_state() for channel in idle}
        assert grpc.ChannelConnectivity.READY not in states
