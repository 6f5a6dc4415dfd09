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

from jina_asgi import Client, DefinitionError, Deployment, Executor, GRPCSidecar, requests
from jina_asgi.clients.asynchronous import AsyncClient
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.protocols.grpc.socket_path import SocketPath
from tests.serving import free_port

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


async def test_what_a_server_that_drains_still_answers_arrives_though_others_find_nobody() -> None:
    async with draining() as (_, first):
        Model.go.set()
        assert "a" == await first


async def test_a_call_whose_client_is_closed_is_told_so_and_nobody_has_cancelled_it() -> None:
    async with draining() as (client, first):
        await client.close()
        with pytest.raises(ConnectionError, match="is closed; the call may have taken effect"):
            await first










