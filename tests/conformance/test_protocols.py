"""What every protocol promises besides the contract of Runners: discovery, and what a server does while it drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from docarray import DocList

from jina_asgi import Executor, requests
from jina_asgi.errors import NotReady, ProtocolError, ReplicaDied
from jina_asgi.protocols.frames._heads import describe, endpoint_of
from jina_asgi.testing.calling import PATIENCE, Running, all_docs, call_to
from jina_asgi.testing.executors import NoDefault, Probe, Text
from tests.conformance.protocols import PROTOCOLS

protocols = pytest.mark.parametrize("make", PROTOCOLS, ids=lambda make: make.__name__)


@protocols
async def test_a_client_finds_the_endpoints_of_a_server(make: Any) -> None:
    served = make(Probe)
    client = served.client(None)
    async with served.server(), client.lifespan():
        described = {name: endpoint_of(describe(endpoint)) for name, endpoint in served.endpoints.items()}
        assert dict(client.endpoints) == described
        result = await client.call(call_to(client, "/sync", [{"text": "a"}]))
        steps = await all_docs(client, call_to(client, "/stream", [{"text": "a"}]))
        assert [docs.typed[0]["text"] for docs in (result.docs, *steps)] == ["A", "a0", "a1", "a2"]


@protocols
async def test_a_client_that_expects_other_endpoints_is_refused(make: Any) -> None:
    served = make(NoDefault)
    async with served.server():
        with pytest.raises(ProtocolError):
            async with served.client(make(Probe).endpoints).lifespan():
                pass


@protocols
async def test_a_server_that_drains_answers_open_calls_and_refuses_new_ones(make: Any) -> None:
    begun, may_end = {name: asyncio.Event() for name in ("call", "stream")}, asyncio.Event()

    class Gate(Executor):
        @requests(on="/wait")
        async def wait(self, docs: DocList[Text]) -> DocList[Text]:
            begun["call"].set()
            await may_end.wait()
            return docs

        @requests(on="/each")
        async def each(self, doc: Text) -> AsyncGenerator[Text, None]:
            yield doc
            begun["stream"].set()
            await may_end.wait()
            yield doc

        @requests(on="/echo")
        async def echo(self, docs: DocList[Text]) -> DocList[Text]:
            return docs

    served, docs = make(Gate), [Text(text="a")]
    server = AsyncExitStack()
    await server.enter_async_context(served.server())
    async with Running(served.inner) as client:

        async def is_refused() -> bool:
            try:
                async with asyncio.timeout(PATIENCE):
                    await client.call("/echo", docs)
            except NotReady:
                return True
            except ReplicaDied:  # gRPC cancels a call that arrives in the moment in which its server stops listening
                return False
            return False

        call = asyncio.ensure_future(client.call("/wait", docs))
        stream = asyncio.ensure_future(all_docs(served.inner, call_to(served, "/each", docs)))
        await asyncio.gather(*(event.wait() for event in begun.values()))
        draining = asyncio.ensure_future(server.aclose())
        try:
            await client.until(is_refused)
            with pytest.raises(NotReady):
                async with asyncio.timeout(PATIENCE), Running(served.client(served.endpoints)) as another:
                    await another.call("/echo", docs)
            assert not draining.done()
        finally:
            may_end.set()
        assert [len((await call).docs), len(await stream)] == [1, 2]
        await draining
