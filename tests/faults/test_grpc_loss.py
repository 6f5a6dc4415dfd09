"""gRPC goes while HTTP is served: its server fails, its socket closes, others take its address; HTTP never notices."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, GRPCSidecar, JinaASGI, requests
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.protocols.grpc.remote import ping_problem
from jina_asgi.protocols.grpc.server import listening
from tests.doubles.pool_watch import Watched
from tests.doubles.rig import LOCAL, Served
from tests.doubles.uvicorn_server import free_port, serving
from tests.faults.wire import Ledger, neighbours

pytestmark = pytest.mark.processes

CHECK = "/grpc.health.v1.Health/Check"


class Text(BaseDoc):
    text: str = ""


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: DocList[Text]) -> DocList[Text]:
        return docs


class Both:
    """An application over HTTP and gRPC, in this process."""

    def __init__(self, http: httpx.AsyncClient, port: int, ledger: Ledger) -> None:
        self.http, self.port, self.ledger = http, port, ledger

    async def ready(self) -> int:
        return (await self.http.get("/-/ready")).status_code

    async def grpc(self) -> dict[str, Any]:
        return dict((await self.http.get("/-/status")).json()["grpc"])

    async def state_is(self, state: str) -> None:
        await until(lambda: self._is(state))

    async def _is(self, state: str) -> bool:
        return (await self.grpc())["state"] == state

    async def answers(self) -> None:
        """A client that comes now gets an answer."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(f"{LOCAL}:{self.port}", options=options) as channel:
            assert await channel.unary_unary(CHECK)(b"", wait_for_ready=True, timeout=10.0)


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15.0):
        while not await what():
            await asyncio.sleep(0.02)  # it is asked from outside, where nothing tells when that changes


@asynccontextmanager
async def both(**options: Any) -> AsyncIterator[Both]:
    """Clients ask over HTTP all the while, and each of their answers has to be right."""
    port = free_port()
    app = JinaASGI(Deployment(Echo), grpc={"bind": f"{LOCAL}:{port}", **options}, wait_ready=True)
    async with (
        serving(app, lifespan="on") as http_port,
        httpx.AsyncClient(base_url=f"http://{LOCAL}:{http_port}") as http,
    ):
        async with neighbours(http_port, "/echo", count=2) as ledger:
            found = Both(http, port, ledger)
            await found.answers()
            yield found
        assert ledger.right > 0
        assert [] == ledger.others


async def stop(port: int) -> None:
    """As grpcio itself ends a server whose own loop has failed."""
    gc.unfreeze()  # what serves is left out of collections, and is not shown
    [server] = [found for found in gc.get_objects() if issubclass(type(found), grpc.aio.Server)]
    await server.stop(None)


async def shut(port: int) -> None:
    """The socket is gone, and gRPC is not told."""
    for number, _ in listening(port):
        with socket.socket(fileno=os.dup(number)) as listener:
            listener.shutdown(socket.SHUT_RDWR)


Loss = Callable[[int], Awaitable[None]]


@pytest.mark.parametrize("loss", [stop, shut])
@pytest.mark.parametrize("shared", [True, False])
async def test_what_is_lost_is_started_again_and_http_goes_on(loss: Loss, shared: bool) -> None:
    """GR-14."""
    async with both(shared=shared) as served:
        await loss(served.port)
        await served.state_is("down")
        assert 200 == await served.ready()
        await served.answers()
        figures = await served.grpc()
        assert ("serving", 1, served.port) == (figures["state"], figures["restarts"], figures["port"])


async def test_what_is_lost_twice_comes_back_twice() -> None:
    """GR-14: also the port that was chosen by the system."""
    async with GRPCSidecar(Deployment(Echo)) as sidecar:
        port = sidecar.port
        assert port is not None
        for _ in range(2):
            await stop(port)
            await until(lambda: _is_ready(sidecar, False))
            await until(lambda: _is_ready(sidecar, True))
            assert port == sidecar.port
            assert "" == await asyncio.to_thread(ping_problem, f"{LOCAL}:{port}", whole=True, timeout=5.0)


async def _is_ready(sidecar: GRPCSidecar, ready: bool) -> bool:
    return sidecar.ready == ready


async def test_readiness_is_of_grpc_too_where_it_is_required() -> None:
    """GR-14."""
    async with both(required=True) as served:
        assert 200 == await served.ready()
        await shut(served.port)
        await served.state_is("down")
        refused = await served.http.get("/-/ready")
        assert 503 == refused.status_code
        assert "gRPC is down" in refused.json()["detail"]
        await served.state_is("serving")
        assert 200 == await served.ready()


@pytest.mark.parametrize("shared", [True, False])
async def test_a_port_that_is_taken_meanwhile_is_waited_for(shared: bool) -> None:
    """GR-14."""
    async with both(shared=shared) as served:
        await shut(served.port)
        with closing(socket.create_server((LOCAL, served.port), backlog=1)):
            await until(lambda: _reason(served, "in use"))
            assert 200 == await served.ready()
        await served.answers()


async def _reason(served: Both, word: str) -> bool:
    figures = await served.grpc()
    return figures["state"] == "down" and word in figures["reason"]


async def test_serving_ends_at_once_while_grpc_is_down() -> None:
    """GR-14."""
    async with asyncio.timeout(10.0):
        async with both() as served:
            await stop(served.port)
            await served.state_is("down")
    with closing(socket.create_server((LOCAL, served.port))):
        pass  # nobody holds it


async def test_a_drain_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    """GR-07, GR-14: a server that was told to end, in the time that its calls still have, is not started again."""
    async with both() as served:
        pass
    assert "down" not in caplog.text
    assert "again" not in caplog.text
    assert await asyncio.to_thread(ping_problem, f"{LOCAL}:{served.port}", whole=False, timeout=2.0)


APP = """
from docarray import BaseDoc, DocList
from jina_asgi import Deployment, Executor, JinaASGI, requests

class Text(BaseDoc):
    text: str = ""

class Echo(Executor):
    @requests
    def echo(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return docs

asgi = JinaASGI(Deployment(Echo), grpc="{bind}")
"""


def gunicorn(folder: Path, bind: str, workers: int, *options: str) -> Served:
    (folder / "app.py").write_text(APP.replace("{bind}", bind))
    words = ["gunicorn", "-c", "python:jina_asgi.gunicorn", "-b", f"{LOCAL}:0", "--chdir", str(folder), "app:asgi"]
    return Served("gunicorn-uvicorn", "", "-w", str(workers), *options, command=words)


def end(pid: int) -> None:
    """Kill a process, and return once it is gone."""
    watched = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        select.select([watched], [], [], 10.0)
    finally:
        os.close(watched)


def test_a_worker_that_replaces_another_serves_http_while_its_port_is_taken(tmp_path: Path) -> None:
    """GR-14: told from the first start of a server, which a port in use ends."""
    port = free_port()
    with gunicorn(tmp_path, f"{LOCAL}:{port}", 1) as server:
        server.logged("startup complete")
        [worker] = Watched(server).workers
        end(worker)
        with closing(socket.create_server((LOCAL, port))):
            server.logged("another process has taken it")
            with server.client() as http:
                assert (
                    200 == http.post("/post", json={"data": [{"text": "a"}]}).status_code
                )  # waits until it has loaded
                assert 200 == http.get("/-/ready").status_code
                assert "down" == http.get("/-/status").json()["grpc"]["state"]
        server.logged("answers again")
        assert "" == ping_problem(f"{LOCAL}:{port}", whole=True, timeout=5.0)
        server.signal(signal.SIGTERM)
        assert 0 == server.ended(within=10.0)


def test_a_port_in_use_ends_the_first_start_of_a_server(tmp_path: Path) -> None:
    """GR-14."""
    with socket.create_server((LOCAL, 0)) as taken:
        with gunicorn(tmp_path, f"{LOCAL}:{taken.getsockname()[1]}", 2) as server:
            server.logged("is in use; choose another")
            assert 0 != server.ended(within=20.0)


def test_workers_that_are_replaced_pass_the_unix_socket_on(tmp_path: Path) -> None:
    """GR-14."""
    where = f"unix:{tmp_path / 's'}"
    with gunicorn(tmp_path, where, 2) as server:
        assert serves(where)
        for worker in Watched(server).workers:
            end(worker)
        server.logged("Booting worker with pid.*")
        assert serves(where)
        server.signal(signal.SIGTERM)
        assert 0 == server.ended(within=10.0)


def serves(where: str) -> bytes:
    """What health says, once somebody is there."""
    with grpc.insecure_channel(where, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        return bytes(channel.unary_unary(CHECK)(b"", wait_for_ready=True, timeout=20.0))


async def test_a_unix_socket_is_taken_from_dead_servers_only(tmp_path: Path) -> None:
    """GR-14: gRPC would take it without a word."""
    where = f"unix:{tmp_path / 's'}"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        with pytest.raises(PortAlreadyUsed, match="in use"):
            async with GRPCSidecar(Deployment(Echo), where):
                pass
    async with GRPCSidecar(Deployment(Echo), where):
        with pytest.raises(PortAlreadyUsed, match="this process"):
            async with GRPCSidecar(Deployment(Echo), where):
                pass
        assert "" == await asyncio.to_thread(ping_problem, where, whole=True, timeout=5.0)


def test_a_server_without_lifespan_says_once_that_there_is_no_grpc(caplog: pytest.LogCaptureFixture) -> None:
    app = JinaASGI(Deployment(Echo), grpc=f"{LOCAL}:{free_port()}")
    with httpx.Client(transport=httpx.WSGITransport(app=app.wsgi), base_url="http://here") as http:
        for _ in range(2):
            assert 200 == http.post("/echo", json={"data": [{"text": "a"}]}).status_code
        figures = http.get("/-/status").json()["grpc"]
    app.service.close()
    assert "stopped" == figures["state"]
    assert "no lifespan" in figures["reason"]
    assert 1 == caplog.text.count("is not served: this server sends no lifespan events")


async def test_grpc_goes_on_while_one_host_of_an_application_does() -> None:
    """Whichever of two hosts began first, and whichever ends first."""
    port = free_port()
    app = JinaASGI(Deployment(Echo), grpc=f"{LOCAL}:{port}", wait_ready=True)
    for first_ends in (True, False):
        one, other = app.lifespan(), app.lifespan()
        await one.__aenter__()
        await other.__aenter__()
        ending, staying = (one, other) if first_ends else (other, one)
        await ending.__aexit__(None, None, None)
        assert await asyncio.to_thread(ping_problem, f"{LOCAL}:{port}", whole=True, timeout=10.0) == ""
        await staying.__aexit__(None, None, None)
        assert app.sidecar is not None
        assert app.sidecar.status()["state"] == "stopped"
