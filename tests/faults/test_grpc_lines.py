"""What becomes of open calls where a server or a client ends, and who may listen where."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Client, Context, DefinitionError, Deployment, Executor, GRPCSidecar, requests
from jina_asgi.clients.asynchronous import AsyncClient
from jina_asgi.documents.codec import codec
from jina_asgi.excepts import BadServer, PortAlreadyUsed
from jina_asgi.protocols.grpc.remote import GrpcRunner
from jina_asgi.protocols.grpc.server import SocketPath
from jina_asgi.types import Call
from tests.doubles.uvicorn_server import free_port

pytestmark = pytest.mark.processes


class Text(BaseDoc):
    text: str = ""


class Model(Executor):
    begun: asyncio.Event
    go: asyncio.Event

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        self.begun.set()
        await self.go.wait()
        return docs

    @requests(on="/headers")
    async def headers(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        ours = {"user-agent", "grpc-accept-encoding", "accept-encoding", "traceparent", "grpc-timeout"}
        return DocList[Text](
            [Text(text=" ".join(sorted(f"{k}={v}" for k, v in context.headers.items() if k not in ours)))]
        )

    @requests(on="/echo")
    async def echo(self, docs: DocList[Text]) -> DocList[Text]:
        return docs


@asynccontextmanager
async def draining() -> AsyncIterator[tuple[AsyncClient, asyncio.Task[str]]]:
    """A Client with a call open at a server that drains, and that has found nobody there since."""
    Model.begun, Model.go = asyncio.Event(), asyncio.Event()
    listening, over, port = asyncio.Event(), asyncio.Event(), free_port()

    async def serve() -> None:
        async with GRPCSidecar(Deployment(Model), f"127.0.0.1:{port}"):
            listening.set()
            await over.wait()

    async def ask(on: str) -> str:
        answers = client.post(on, [Text(text="a")], return_type=DocList[Text])
        return "".join([doc.text async for docs in answers for doc in docs])

    async with asyncio.timeout(30):
        serving = asyncio.create_task(serve())
        await listening.wait()
        client = Client(port=port, asyncio=True)
        first = asyncio.create_task(ask("/wait"))
        await Model.begun.wait()
        over.set()
        refused = 0
        while refused < 3:
            try:
                await ask("/echo")
            except ConnectionError:
                refused += 1
        yield client, first
        Model.go.set()
        await client.close()
        await serving


async def test_what_a_server_that_drains_still_answers_arrives_though_others_find_no_server() -> None:
    async with draining() as (_, first):
        Model.go.set()
        assert "a" == await first


async def test_a_call_whose_client_is_closed_gets_an_error_and_no_caller_has_cancelled_it() -> None:
    async with draining() as (client, first):
        await client.close()
        with pytest.raises(ConnectionError, match="is closed; the call may have taken effect"):
            await first


async def test_a_server_that_is_back_is_asked_at_once_however_long_it_was_away() -> None:
    port = free_port()
    client = Client(port=port, asyncio=True)

    async def ask() -> list[str]:
        return [
            doc.text async for docs in client.post("/echo", [Text(text="a")], return_type=DocList[Text]) for doc in docs
        ]

    async with asyncio.timeout(30):
        for _ in range(5):
            async with GRPCSidecar(Deployment(Model), f"127.0.0.1:{port}"):
                assert ["a"] == await ask()
            for _ in range(3):
                with pytest.raises(ConnectionError):
                    await ask()
        await client.close()


async def test_of_several_servers_each_call_finds_one_that_is_there() -> None:
    async with GRPCSidecar(Deployment(Model)) as sidecar, asyncio.timeout(30):
        client = Client(host=f"127.0.0.1:{free_port()},127.0.0.1:{sidecar.port}", asyncio=True)

        async def ask() -> int:
            return len([docs async for docs in client.post("/echo", [Text()])])

        for _ in range(5):  # the one that is gone is tried by many at a time, and again
            assert [1] * 40 == await asyncio.gather(*(ask() for _ in range(40)))
        await client.close()


async def test_headers_that_grpc_has_no_place_for_are_not_passed_on_and_the_others_are() -> None:
    async with GRPCSidecar(Deployment(Model)) as sidecar:
        runner = GrpcRunner([f"127.0.0.1:{sidecar.port}"])
        async with runner.lifespan():
            docs = codec(runner.endpoints["/headers"].input).docs([{"text": ""}])
            given = {
                "x-a": "1",
                "trace-bin": "AP8=",
                "x-name": "é",
                "x-line": "a\nb",
                "x!": "2",
                "bad-bin": "?",
                "grpc-x": "3",
            }
            result = await runner.call(Call("/headers", docs, context=Context(headers=given)))
    assert "trace-bin=AP8= x-a=1" == result.docs.typed[0]["text"]


async def test_a_client_says_which_of_its_headers_grpc_has_no_place_for() -> None:
    async with GRPCSidecar(Deployment(Model)) as sidecar:
        client = Client(port=sidecar.port, asyncio=True)
        answers = client.post(
            "/headers", [Text()], return_type=DocList[Text], metadata=(("x-bin", b"\0\xff"), ("X-A", "1"))
        )
        assert ["x-a=1 x-bin=AP8="] == [doc.text async for docs in answers for doc in docs]
        with pytest.raises(BadServer, match="'x-name'"):
            [docs async for docs in client.post("/headers", [Text()], headers={"x-name": "é"})]
        await client.close()


@pytest.mark.parametrize("timeout", [1e9, 1e12, 1e300])
async def test_a_client_may_have_all_the_time_in_the_world(timeout: float) -> None:
    async with GRPCSidecar(Deployment(Model)) as sidecar:
        client = Client(port=sidecar.port, asyncio=True)
        assert [docs async for docs in client.post("/echo", [Text()], timeout=timeout)]
        await client.close()


def certificate(folder: Path, name: str) -> tuple[str, str]:
    key, made = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return str(made), str(key)


async def test_a_file_that_is_no_certificate_or_anothers_key_is_named_and_no_port_is_blamed(tmp_path: Path) -> None:
    (made, key), (_, other) = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    (tmp_path / "junk").write_text("junk")
    junk = str(tmp_path / "junk")
    wrong = [(junk, key, None), (made, junk, None), (made, other, None), (made, key, junk), (made, str(tmp_path), None)]
    for certfile, keyfile, clients in wrong:
        sidecar = GRPCSidecar(Deployment(Model), ssl_certfile=certfile, ssl_keyfile=keyfile, ssl_clients=clients)
        with pytest.raises(DefinitionError, match="cannot serve with the files"):
            await sidecar.__aenter__()


async def test_a_unix_socket_of_a_listening_server_is_not_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(path)
        theirs.listen()
        with pytest.raises(PortAlreadyUsed, match="in use"):
            await GRPCSidecar(Deployment(Model), f"unix:{path}").__aenter__()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    async with GRPCSidecar(Deployment(Model), f"unix:{path}"):  # nobody is behind it any more
        with pytest.raises(PortAlreadyUsed, match="by this process itself"):
            await GRPCSidecar(Deployment(Model), f"unix:{path}").__aenter__()
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            assert await channel.unary_unary("/jina.JinaInfoRPC/_status")(b"")
    assert [] == list(tmp_path.iterdir())


async def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(DefinitionError, match="found another file"):
        await GRPCSidecar(Deployment(Model), f"unix:{tmp_path / 's'}").__aenter__()
    assert "precious" == (tmp_path / "s").read_text()


def test_a_path_that_another_worker_took_over_is_not_removed_by_the_one_before(tmp_path: Path) -> None:
    def listening() -> tuple[SocketPath, socket.socket]:
        path, bound = SocketPath(str(tmp_path / "s")), socket.socket(socket.AF_UNIX)
        bound.bind(path.target.removeprefix("unix:"))
        bound.listen()
        path.publish()
        return path, bound

    (before, one), (after, two) = listening(), listening()
    before.remove()
    with one, two, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        two.accept()[0].close()
    after.remove()
    assert [] == list(tmp_path.iterdir())


async def test_a_server_that_is_far_away_is_reached() -> None:
    """Each of its bytes takes 0.3 s."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65_536):
            loop.call_later(0.3, writer.write, part)
        loop.call_later(0.3, writer.close)
        await writer.wait_closed()

    async with GRPCSidecar(Deployment(Model)) as sidecar, asyncio.timeout(30):

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection("127.0.0.1", sidecar.port)
            await asyncio.gather(forward(reader, there[1]), forward(there[0], writer))
            ended.set()

        async with await asyncio.start_server(connect, "127.0.0.1") as listening:
            port = listening.sockets[0].getsockname()[1]
            async with Client(host="127.0.0.1", port=port, asyncio=True) as client:
                assert 1 == len([docs async for docs in client.post("/echo", [Text()])])
            await ended.wait()
