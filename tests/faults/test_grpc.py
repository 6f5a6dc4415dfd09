"""Faults of gRPC: limits, health, drains, what is off by default, who asks, and what is no message at all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Context, DefinitionError, Deployment, Executor, GRPCSidecar, JinaASGI, Limits, requests
from jina_asgi.documents.codec import codec
from jina_asgi.errors import NotReady, ReplicaDied, TooLarge
from jina_asgi.excepts import BadServer, PortAlreadyUsed
from jina_asgi.protocols.grpc.channels import Channels, Dialling
from jina_asgi.protocols.grpc.discovery import HealthRequest, HealthResponse, ReflectionRequest, ReflectionResponse
from jina_asgi.protocols.grpc.remote import GrpcRemote, GrpcRunner
from jina_asgi.protocols.grpc.rpc import refuse
from jina_asgi.protocols.protobuf.messages import DataRequest, JinaInfoProto
from jina_asgi.testing import client
from jina_asgi.types import Call
from tests.doubles.uvicorn_server import free_port

pytestmark = pytest.mark.processes

CALL = "/jina.JinaRPC/Call"
POST = "/jina.JinaSingleDataRequestRPC/process_single_data"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class Text(BaseDoc):
    text: str = ""


class Model(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.waiting, self.go = asyncio.Event(), asyncio.Event()

    @requests(on="/upper")
    async def upper(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text.upper()) for doc in docs)

    @requests(on="/who")
    async def who(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        return DocList[Text]([Text(text=f"{context.identity} {context.headers.get('x-mine')} {context.request_id}")])

    @requests(on="/secret")
    async def secret(self, docs: DocList[Text]) -> DocList[Text]:
        raise ValueError("pw=SECRET /home/x")

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        self.waiting.set()
        await asyncio.sleep(0.3)
        return docs


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[GRPCSidecar, grpc.aio.Channel]]:
    async with GRPCSidecar(Deployment(Model), **options) as sidecar:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{sidecar.port}") as channel:
            yield sidecar, channel


def request(on: str, text: str = "a", request_id: str = "r") -> bytes:
    docs = codec(Deployment(Model).endpoints["/upper"].input).docs([Text(text=text)])
    from jina_asgi.protocols.protobuf import requests as wire

    return bytes(wire.request(on, docs, {}, request_id=request_id).SerializeToString())


async def refused(work: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return caught.value


async def test_a_message_over_its_limit_is_refused_and_one_at_it_is_not() -> None:
    """GR-04."""
    large = request("/upper", "x" * 5000)
    async with served(limits=Limits(body=len(large))) as (_, channel):
        assert await channel.unary_unary(POST)(large)
        error = await refused(channel.unary_unary(POST)(large + b"\x1a\x00" * 2))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED is error.code()


async def test_a_compressed_message_counts_as_what_it_becomes() -> None:
    """GR-04."""
    bomb = request("/upper", "x" * (1 << 22))
    async with served(limits=Limits(body=1 << 20)) as (_, channel):
        error = await refused(channel.unary_unary(POST)(bomb, compression=grpc.Compression.Gzip))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED is error.code()


async def test_too_many_docs_are_refused() -> None:
    async with served(limits=Limits(docs=2)) as (sidecar, _):
        runner = GrpcRunner([f"127.0.0.1:{sidecar.port}"])
        async with runner.lifespan():
            docs = codec(Deployment(Model).endpoints["/upper"].input).docs([Text() for _ in range(3)])
            with pytest.raises(TooLarge):
                await runner.call(Call("/upper", docs))


@pytest.mark.parametrize("raw", [b"\xff\xff", b"", b"\x0a\x05abc"], ids=repr)
async def test_what_is_no_message_is_answered_by_a_status(raw: bytes) -> None:
    async with served() as (_, channel):
        answer = DataRequest.FromString(await channel.unary_unary(POST)(raw))
        assert (1 if raw else 0) == answer.header.status.code
        assert DataRequest.FromString(await channel.unary_unary(POST)(request("/upper"))).header.status.code == 0


async def test_an_executors_error_goes_well_and_leaks_nothing() -> None:
    """GR-05: no code that a Jina gateway would take for a reason to repeat it."""
    async with served() as (_, channel):
        call = channel.unary_unary(POST)(request("/secret"))
        raw = await call
        assert (("is-error", "true"),) == tuple(await call.trailing_metadata())
        assert b"SECRET" not in raw
        assert b"/home" not in raw
        status = DataRequest.FromString(raw).header.status
        assert (1, "ExecutorError", []) == (status.code, status.exception.name, list(status.exception.stacks))


@pytest.mark.parametrize("error", [ValueError, OSError, ConnectionError, TimeoutError, ReplicaDied, MemoryError])
def test_what_an_executor_raises_is_run_once_however_often_a_client_would_try(error: type[Exception]) -> None:
    """GR-05: real Jina's gateway is asked in tests/interop."""
    runs = []

    class Poisoned(Executor):
        @requests(on="/poison")
        def poison(self, docs: DocList[Text]) -> DocList[Text]:
            runs.append(1)
            raise error("no")

    with Deployment(Poisoned, quiet=True) as served:
        with pytest.raises((BadServer, ConnectionError)):
            served.post("/poison", [Text()], max_attempts=3, initial_backoff=0.01)
    assert [1] == runs


async def test_one_answer_has_an_error_and_its_stream_goes_on() -> None:
    async with served() as (_, channel):
        call = channel.stream_stream(CALL)(iter([request(on) for on in ("/upper", "/secret", "/upper")]))
        codes = [DataRequest.FromString(raw).header.status.code async for raw in call]
    assert [0, 0, 1] == sorted(codes)


async def test_answers_are_in_order_where_that_is_asked() -> None:
    async with served() as (_, channel):
        asked = [request("/wait" if index == 0 else "/upper", str(index), str(index)) for index in range(20)]
        call = channel.stream_stream(CALL)(iter(asked), metadata=(("__results_in_order__", "true"),))
        identities = [DataRequest.FromString(raw).header.request_id async for raw in call]
    assert [str(index) for index in range(20)] == identities


async def test_the_caller_is_known_by_metadata_and_every_method_authenticates() -> None:
    """GR-11."""

    async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
        return "me" if headers.get("authorization") == "Bearer key" else None

    async with served(auth=auth, reflection=True) as (_, channel):
        known = (("authorization", "Bearer key"), ("x-mine", "1"))
        answer = await channel.unary_unary(POST)(request("/who"), metadata=known)
        assert b"me 1 r" in answer
        discover, info = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery", "/jina.JinaInfoRPC/_status"
        for method in (POST, discover, info, "/jina.JinaGatewayDryRunRPC/dry_run", "/jina_asgi.Endpoints/describe"):
            error = await refused(channel.unary_unary(method)(request("/who")))
            assert grpc.StatusCode.UNAUTHENTICATED is error.code(), method
        for method in (CALL, REFLECT):
            call = channel.stream_stream(method)(iter([request("/who")]))
            assert grpc.StatusCode.UNAUTHENTICATED is (await refused(call.read())).code(), method
        assert await channel.unary_unary(CHECK)(b"")


async def test_reflection_is_off_by_default() -> None:
    """GR-08."""
    asked = ReflectionRequest["v1alpha"](list_services="").SerializeToString()
    async with served() as (_, channel):
        call = channel.stream_stream(REFLECT)(iter([asked]))
        assert grpc.StatusCode.UNIMPLEMENTED is (await refused(call.read())).code()
    async with served(reflection=True) as (_, channel):
        raw = await channel.stream_stream(REFLECT)(iter([asked])).read()
        answer = ReflectionResponse["v1alpha"].FromString(raw)
        names = [service.name for service in answer.list_services_response.service]
    assert {"jina.JinaRPC", "jina.JinaSingleDataRequestRPC", "grpc.health.v1.Health"} <= set(names)


async def test_a_write_that_fails_as_its_client_has_left_is_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """grpc.aio raises it from a write, and cancels the call a moment later."""
    service = JinaASGI(Deployment(Model)).service
    with pytest.raises(asyncio.CancelledError):
        await refuse(None, grpc.aio.InternalError("the stream is gone"), service)
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_status_reports_versions_and_no_environment() -> None:
    async with served() as (_, channel):
        told = JinaInfoProto.FromString(await channel.unary_unary("/jina.JinaInfoRPC/_status")(b""))
    assert "docarray" in told.jina
    assert {} == dict(told.envs)


async def test_health_is_reported_and_watched_until_serving_ends() -> None:
    """GR-06."""
    port = free_port()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        async with GRPCSidecar(Deployment(Model), f"127.0.0.1:{port}"):
            assert 1 == HealthResponse.FromString(await channel.unary_unary(CHECK)(b"")).status
            unknown = HealthRequest(service="nobody").SerializeToString()
            assert grpc.StatusCode.NOT_FOUND is (await refused(channel.unary_unary(CHECK)(unknown))).code()
            watch = channel.unary_stream(WATCH)(b"")
            seen = [HealthResponse.FromString(await watch.read()).status]
        async with asyncio.timeout(5):
            while (raw := await watch.read()) is not grpc.aio.EOF:
                seen.append(HealthResponse.FromString(raw).status)
    assert [1, 2] == seen


async def test_what_runs_is_answered_when_serving_ends_and_open_streams_do_not_hold_it_up() -> None:
    """GR-07."""
    deployment, port = Deployment(Model), free_port()
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        async with asyncio.timeout(5), GRPCSidecar(deployment, f"127.0.0.1:{port}"):
            idle = channel.stream_stream(CALL)()
            await idle.write(request("/upper"))
            await idle.read()
            running = channel.unary_unary(POST)(request("/wait"))
            await running.wait_for_connection()
            await asyncio.sleep(0.1)
        assert 0 == DataRequest.FromString(await running).header.status.code
        assert grpc.StatusCode.UNAVAILABLE is (await refused(idle.read())).code()


async def test_a_port_in_use_is_refused_and_what_stands_there_goes_on() -> None:
    async with served() as (sidecar, channel):
        for shared in (True, False):
            with pytest.raises(PortAlreadyUsed):
                async with GRPCSidecar(Deployment(Model), f"127.0.0.1:{sidecar.port}", shared=shared):
                    pass
        assert await channel.unary_unary(POST)(request("/upper"))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org"])
def test_it_is_not_open_to_all_by_default(host: str) -> None:
    """GR-13."""

    async def auth(headers: Mapping[str, str], endpoint: str) -> str:
        return "anybody"

    encrypted = {"bind": f"{host}:50051", "ssl_certfile": "a.pem", "ssl_keyfile": "a.key"}
    with pytest.raises(DefinitionError, match=r"without TLS .* and without `auth`.*insecure_bind"):
        JinaASGI(Deployment(Model), grpc=f"{host}:50051")
    with pytest.raises(DefinitionError, match="machine without `auth` or ssl_clients: give both"):
        JinaASGI(Deployment(Model), grpc=encrypted)
    with pytest.raises(DefinitionError, match="machine without TLS"):
        JinaASGI(Deployment(Model), grpc=f"{host}:50051", auth=auth)
    JinaASGI(Deployment(Model), grpc=encrypted, auth=auth)
    JinaASGI(Deployment(Model), grpc={**encrypted, "ssl_clients": "b.pem"})
    JinaASGI(Deployment(Model), grpc={"bind": f"{host}:50051", "insecure_bind": True})


async def test_what_is_open_to_others_is_reported_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """GR-13."""
    async with GRPCSidecar(Deployment(Model), "0.0.0.0:0", insecure_bind=True):
        assert "'0.0.0.0:0' listens beyond this machine without TLS" in caplog.text


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"]
)
async def test_what_is_no_http2_closes_its_connection_alone(raw: bytes) -> None:
    """GR-09."""
    async with served() as (sidecar, channel):
        assert sidecar.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
        writer.write(raw)
        writer.write_eof()
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
        assert await channel.unary_unary(POST)(request("/upper"))


async def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 's'}"
    async with GRPCSidecar(Deployment(Model), where), grpc.aio.insecure_channel(where) as channel:
        assert await channel.unary_unary(POST)(request("/upper"))


async def test_without_a_server_another_one_is_asked_and_none_is_an_error() -> None:
    gone = f"127.0.0.1:{free_port()}"
    async with served() as (sidecar, _):
        runner = GrpcRunner([gone, f"127.0.0.1:{sidecar.port}"])
        async with runner.lifespan():
            docs = codec(runner.endpoints["/upper"].input).docs([{"text": "a"}])
            for _ in range(4):
                assert "A" == (await runner.call(Call("/upper", docs))).docs.typed[0]["text"]
    with pytest.raises(NotReady, match="cannot connect"):
        async with GrpcRunner([gone]).lifespan():
            pass


def certificate(folder: Path, name: str, *, days: int = 1) -> tuple[str, str]:
    """A certificate for localhost, which signs itself, and its key."""
    key, made = str(folder / f"{name}.key"), str(folder / f"{name}.pem")
    asked, names = str(folder / f"{name}.csr"), str(folder / f"{name}.names")
    Path(names).write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:TRUE\n")
    new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", asked]
    sign = ["x509", "-req", "-in", asked, "-signkey", key, "-days", str(days), "-extfile", names, "-out", made]
    for words in (new, sign):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return made, key


async def test_tls_is_spoken_to_who_trusts_it_and_to_clients_that_show_a_certificate(tmp_path: Path) -> None:
    """GR-13."""
    made, key = certificate(tmp_path, "server")
    other, _ = certificate(tmp_path, "other")
    shown = certificate(tmp_path, "client")
    tls: dict[str, Any] = {"ssl_certfile": made, "ssl_keyfile": key}

    async def answers(sidecar: GRPCSidecar, **dialled: Any) -> bool:
        channels = Channels([f"127.0.0.1:{sidecar.port}"], Dialling.of(**dialled))
        try:
            async with asyncio.timeout(5):
                return await GrpcRemote(channels).ready()
        except (NotReady, TimeoutError):
            return False
        finally:
            await channels.close()

    async with GRPCSidecar(Deployment(Model), **tls) as sidecar:
        assert await answers(sidecar, tls=True, roots=made)
        assert not await answers(sidecar, tls=True, roots=other)
        assert not await answers(sidecar)
    async with GRPCSidecar(Deployment(Model), **tls, ssl_clients=shown[0]) as sidecar:
        assert await answers(sidecar, tls=True, roots=made, certificate=shown)
        assert not await answers(sidecar, tls=True, roots=made)


async def told(port: int | None, **dialled: Any) -> str:
    """Why nobody can connect."""
    channels = Channels([f"127.0.0.1:{port}"], Dialling.of(**dialled))
    try:
        async with asyncio.timeout(10):
            with pytest.raises(NotReady) as caught:
                await GrpcRemote(channels).served()
    finally:
        await channels.close()
    return str(caught.value)


async def test_who_cannot_connect_learns_why(tmp_path: Path) -> None:
    """GR-13: nobody listens, another signed the certificate, or it has expired."""
    made, key = certificate(tmp_path, "server")
    other, _ = certificate(tmp_path, "other")
    old, old_key = certificate(tmp_path, "old", days=-1)
    assert "Connection refused" in await told(free_port())
    async with GRPCSidecar(Deployment(Model), ssl_certfile=made, ssl_keyfile=key) as sidecar:
        assert "CERTIFICATE_VERIFY_FAILED" in await told(sidecar.port, tls=True, roots=other)
    async with GRPCSidecar(Deployment(Model), ssl_certfile=old, ssl_keyfile=old_key) as sidecar:
        assert "CERTIFICATE_VERIFY_FAILED" in await told(sidecar.port, tls=True, roots=old)  # it has expired


async def test_a_client_whose_certificate_has_expired_is_not_answered(tmp_path: Path) -> None:
    """GR-13."""
    made, key = certificate(tmp_path, "server")
    old = certificate(tmp_path, "old", days=-1)
    tls: dict[str, Any] = {"ssl_certfile": made, "ssl_keyfile": key, "ssl_clients": old[0]}
    async with GRPCSidecar(Deployment(Model), **tls) as sidecar:
        channels = Channels([f"127.0.0.1:{sidecar.port}"], Dialling.of(tls=True, roots=made, certificate=old))
        with pytest.raises(NotReady):
            await GrpcRemote(channels).ready()
        await channels.close()


def test_a_deployment_with_a_certificate_of_its_own_is_trusted_by_its_own_client(tmp_path: Path) -> None:
    made, key = certificate(tmp_path, "whoever")
    with Deployment(Model, ssl_certfile=made, ssl_keyfile=key) as served:
        assert ["HI"] == [doc.text for doc in served.post("/upper", [Text(text="hi")])]


async def test_requests_of_grpc_and_of_http_are_one_batch() -> None:
    sizes: list[int] = []
    running, go = threading.Event(), threading.Event()

    class Batched(Executor):
        @requests(on="/upper")
        def upper(self, docs: DocList[Text]) -> DocList[Text]:
            sizes.append(len(docs))
            running.set()
            go.wait(10)
            return docs

    deployment, port = Deployment(Batched, uses_dynamic_batching={"/upper": {"preferred_batch_size": 2}}), free_port()
    asgi = JinaASGI(deployment, grpc=f"127.0.0.1:{port}", wait_ready=True)
    async with client(asgi) as http, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(POST)
        first = ask(request("/upper"))
        await asyncio.to_thread(running.wait, 10)
        second = ask(request("/upper"))
        third = asyncio.ensure_future(http.post("/upper", json={"data": [{"text": "b"}]}))
        while deployment.runner.in_flight < 3:
            await asyncio.sleep(0.01)
        go.set()
        assert 200 == (await third).status_code
        assert await first
        assert await second
    assert [1, 2] == sizes
