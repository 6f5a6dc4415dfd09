"""Jina's binary WebSocket, asked by the Client: of a server that describes itself no better than a real Jina does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from jina_asgi import Client, Context, Executor, JinaASGI, requests
from jina_asgi.errors import ProtocolError, ReplicaDied
from jina_asgi.excepts import BadClientInput, BadServer
from tests.doubles.uvicorn_server import serving


class Text(BaseDoc):
    text: str = ""


TEXTS = DocList[Text]


class Model(Executor):
    @requests
    async def default(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(text=f"default {doc.text}") for doc in docs])

    @requests(on="/upper")
    async def upper(self, docs: DocList[Text], parameters: dict, context: Context) -> DocList[Text]:
        end = f"{parameters.get('end', '')}{context.headers.get('x-end', '')}"
        return DocList[Text]([Text(text=doc.text.upper() + end) for doc in docs])

    @requests(on="/fail")
    async def fail(self, docs: DocList[Text]) -> DocList[Text]:
        raise ValueError("boom")

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.get_running_loop().create_future()
        return docs


class LikeJinas:
    """An application as a real Jina's Flow with a WebSocket shows itself: an OpenAPI document without endpoints.

    `said` answers the WebSocket in place of the application.
    """

    def __init__(self, asgi: JinaASGI, *, paths: Any = None, said: list[dict[str, Any]] | None = None) -> None:
        self._asgi, self._paths, self._said = asgi, paths or {}, said
        self.opened = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in ("/-/endpoints", "/openapi.json"):
            is_ours = scope["path"] == "/-/endpoints"
            body: Any = {"detail": "Not Found"} if is_ours else {"openapi": "3.1.0", "paths": self._paths}
            await JSONResponse(body, 404 if is_ours else 200)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            self.opened += 1
            assert ("/", ["bytes"]) == (scope["path"], scope["subprotocols"])
            if self._said is not None:
                await receive()
                await send({"type": "websocket.accept"})
                await receive()
                for message in self._said:
                    await send(message)
                return
        await self._asgi(scope, receive, send)


@asynccontextmanager
async def asked(**options: Any) -> AsyncIterator[tuple[Any, LikeJinas]]:
    asgi = JinaASGI(Model, wait_ready=True)
    app = LikeJinas(asgi, **options)
    async with asgi.lifespan(), serving(app) as port:
        async with Client(port=port, protocol="websocket", asyncio=True) as client:
            yield client, app


async def posted(client: Any, on: str, *said: str, **options: Any) -> list[str]:
    inputs = [Text(text=text) for text in said]
    return [doc.text async for docs in client.post(on, inputs, return_type=TEXTS, **options) for doc in docs]


async def test_any_endpoint_is_asked_and_the_server_finds_it() -> None:
    async with asked() as (client, _):
        assert ["A!", "B!"] == await posted(client, "/upper", "a", "b", parameters={"end": "!"})
        assert ["default a"] == await posted(client, "/nowhere", "a")
        assert await client.is_flow_ready()


async def test_many_requests_are_open_at_once_on_few_sockets_in_order() -> None:
    async with asked() as (client, app):
        many = [str(number) for number in range(300)]
        assert many == await posted(client, "/upper", *many, request_size=1, results_in_order=True)
        assert app.opened < 20


async def test_callers_with_other_headers_have_other_sockets() -> None:
    async with asked() as (client, app):
        for who in ("1", "2", "1"):
            assert [f"A{who}"] == await posted(client, "/upper", "a", headers={"x-end": who})
        assert 2 == app.opened


async def test_an_error_is_that_of_its_request() -> None:
    async with asked() as (client, _):
        with pytest.raises(BadServer, match="the executor failed"):
            await posted(client, "/fail", "a")
        assert ["A"] == await posted(client, "/upper", "a")


async def test_a_call_that_is_late_leaves_the_others_alone() -> None:
    async with asked() as (client, app):
        late = asyncio.ensure_future(posted(client, "/wait", "a", timeout=0.2))
        assert ["A"] == await posted(client, "/upper", "a")
        with pytest.raises(ConnectionError, match="deadline"):
            await late
        assert ["A"] == await posted(client, "/upper", "a")
        assert 1 == app.opened


async def test_there_are_no_streams() -> None:
    async with asked() as (client, _):
        with pytest.raises(BadClientInput, match="no streams"):
            await anext(client.stream_doc("/upper", Text()))


async def test_a_network_error_of_its_server_is_reported_with_its_reason() -> None:
    said = [{"type": "websocket.close", "code": 1011, "reason": "the deployment is down"}]
    async with asked(said=said) as (client, _):
        with pytest.raises(ConnectionError, match="1011 the deployment is down") as told:
            await posted(client, "/upper", "a")
        assert isinstance(told.value.__cause__, ReplicaDied)


@pytest.mark.parametrize("message", [{"text": "hi"}, {"bytes": b"\xff"}], ids=["text", "junk"])
async def test_what_is_no_answer_ends_the_socket(message: dict[str, Any]) -> None:
    async with asked(said=[{"type": "websocket.send", **message}]) as (client, _):
        with pytest.raises(BadServer, match="not a DataRequestProto") as told:
            await posted(client, "/upper", "a")
        assert isinstance(told.value.__cause__, ProtocolError)


async def test_a_server_of_endpoints_that_has_no_websocket_is_to_be_asked_over_http() -> None:
    data = {"content": {"application/json": {"schema": {"properties": {"data": {"type": "array"}}}}}}
    async with asked(paths={"/upper": {"post": {"requestBody": data}}}) as (client, app):
        with pytest.raises(BadServer, match="ask it over HTTP"):
            await posted(client, "/upper", "a")
        assert 0 == app.opened


WITHOUT = """
    import sys
    sys.modules["google.protobuf"] = None  # as if it were not installed
    from jina_asgi import Client
    from jina_asgi.excepts import NotSupportedError

    try:
        Client(port=int(sys.argv[1]), protocol="websocket").post("/upper")
    except NotSupportedError as error:
        print(error)
"""


@pytest.mark.processes
async def test_without_protobuf_it_learns_which_extra_it_needs() -> None:
    asgi = JinaASGI(Model)
    async with asgi.lifespan(), serving(LikeJinas(asgi)) as port:
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WITHOUT), str(port)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    told = (
        f"http://127.0.0.1:{port} is a real Jina, whose WebSocket needs the extra grpc: pip install 'jina-asgi[grpc]'"
    )
    assert told == done.stdout.strip()
