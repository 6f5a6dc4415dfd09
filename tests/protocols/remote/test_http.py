"""The Runner at a URL: what the conformance suite does not ask, since it is about HTTP or about other people's servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from jina_asgi import Context, Deployment, Executor, JinaASGI, mount, requests
from jina_asgi.documents.codec import codec
from jina_asgi.errors import (
    DeadlineExceeded,
    DefinitionError,
    ExecutorError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    NotReady,
    Overloaded,
    ProtocolError,
    ReplicaDied,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownEndpoint,
)
from jina_asgi.fastapi import include
from jina_asgi.protocols.http.openapi_reader import endpoints_of
from jina_asgi.protocols.problems import error_of
from jina_asgi.protocols.remote.server import HttpRunner
from jina_asgi.testing import ASGITransport, client
from jina_asgi.types import Call, Runner
from tests.doubles.uvicorn_server import free_port


class Text(BaseDoc):
    text: str


class Item(BaseModel):
    name: str


class Vector(BaseDoc):
    vector: NdArray


class Model(Executor):
    @requests(on="/upper")
    async def upper(self, docs: DocList[Text], parameters: dict[str, Any], context: Context) -> DocList[Text]:
        text = f"{sorted({'x-mine', 'authorization', 'cookie'}.intersection(context.headers))}"
        return DocList[Text](Text(id=doc.id, text=doc.text.upper() + parameters.get("end", text)) for doc in docs)

    @requests(on="/double")
    async def double(self, docs: DocList[Vector]) -> DocList[Vector]:
        for doc in docs:
            doubled: Any = doc.vector * 2
            doc.vector = doubled
        return docs

    @requests(on="/count")
    async def count(self, doc: Text, parameters: dict[str, Any]) -> Text:
        for index in range(parameters.get("n", 2)):
            yield Text(text=f"{doc.text}{index}")


def at(app: Any, url: str = "http://test", **options: Any) -> HttpRunner:
    return HttpRunner(url, transport=ASGITransport(app), **options)


def call(runner: Runner, on: str, text: str = "a", context: Context | None = None, **parameters: Any) -> Call:
    docs = codec(Deployment(Model).endpoints["/upper"].input).docs([Text(id="1", text=text)])
    return Call(on, docs, parameters, context or Context("r"))


async def streamed(runner: Runner, asked: Call) -> list[Any]:
    async with aclosing(runner.stream(asked)) as steps:
        return [docs.typed[0]["text"] async for docs in steps]


@asynccontextmanager
async def mounted(**options: Any) -> AsyncIterator[Starlette]:
    app = Starlette()
    asgi = mount(app, "/lm", Deployment(Model), wait_ready=True, **options)
    async with asgi.lifespan():
        yield app


async def test_a_runner_reaches_an_application_behind_a_prefix() -> None:
    async with mounted() as app, at(app, "http://test/lm/").lifespan():
        runner = at(app, "http://test/lm/")
        async with runner.lifespan():
            [doc] = (await runner.call(call(runner, "/upper", end="!"))).docs.typed
            assert {"id": "1", "text": "A!"} == doc
            assert ["a0", "a1", "a2"] == await streamed(runner, call(runner, "/count", n=3))


async def test_tensors_travel_as_they_are() -> None:
    async with mounted() as app:
        runner = at(app, "http://test/lm")
        async with runner.lifespan():
            vectors = codec(Deployment(Model).endpoints["/double"].input)
            sent = vectors.docs([Vector(vector=np.full((3, 4), 1.5, np.float16)) for _ in range(5)])
            answers = (await runner.call(Call("/double", sent))).docs.typed
    assert [(np.dtype(np.float16), (3, 4), 3.0)] * 5 == [
        (a["vector"].dtype, a["vector"].shape, a["vector"][2, 3]) for a in answers
    ]


async def test_a_callers_credentials_stay_here() -> None:
    given = {"x-mine": "1", "authorization": "Bearer secret", "cookie": "a=b", "content-length": "7", "host": "other"}
    async with mounted() as app:
        runner = at(app, "http://test/lm")
        async with runner.lifespan():
            [doc] = (await runner.call(call(runner, "/upper", context=Context("r", headers=given)))).docs.typed
    assert "A['x-mine']" == doc["text"]


async def test_a_client_that_is_handed_over_brings_its_own_credentials_and_stays_open() -> None:
    async def auth(headers: Any, endpoint: str) -> str | None:
        return "me" if headers.get("authorization") == "Bearer mine" else None

    async with mounted(auth=auth) as app:
        with pytest.raises(Unauthenticated):
            async with at(app, "http://test/lm").lifespan():
                pass
        async with httpx.AsyncClient(transport=ASGITransport(app), headers={"authorization": "Bearer mine"}) as http:
            runner = HttpRunner("http://test/lm", http=http)
            async with runner.lifespan():
                assert 1 == len((await runner.call(call(runner, "/upper"))).docs)
            assert not http.is_closed


async def test_a_host_that_includes_the_endpoints_is_read_from_its_openapi() -> None:
    host = FastAPI()
    include(host, Deployment(Model), prefix="/lm")

    @host.post("/items")
    def items(item: Item) -> Item:
        return item

    async with client(host):
        runner = at(host)
        async with runner.lifespan():
            assert ["/lm/upper", "/lm/double", "/lm/count"] == list(runner.endpoints)
            assert ["batch", "batch", "stream"] == [endpoint.kind for endpoint in runner.endpoints.values()]
            [doc] = (await runner.call(call(runner, "/lm/upper", end="!"))).docs.typed
            assert ("1", "A!") == (doc["id"], doc["text"])
            assert ["a0"] == await streamed(runner, call(runner, "/lm/count", n=1))


FIELDS = {"properties": {"text": {"type": "string"}}}


@pytest.mark.parametrize(
    "described",
    [
        {"parameters": [{"name": "text", "in": "query", "schema": {"type": "string"}}]},
        {"requestBody": {"content": {"application/json": {"schema": FIELDS}}}},
    ],
    ids=["query", "body"],
)
async def test_a_stream_that_answers_get_alone_is_sent_a_bare_document_and_takes_no_parameters(described: Any) -> None:
    """So a Jina's streams are."""
    got = []

    async def stream(request: Any) -> Response:
        got.append((request.method, await request.json()))
        frames = [b'event: update\r\ndata: {"text": "x"}\r\n\r\n', b": ping\r\n\r\n", b"event: end\r\n\r\n"]
        return StreamingResponse(iter(frames), media_type="text/event-stream")

    async def document(request: Any) -> Response:
        return JSONResponse({"paths": {"/stream": {"get": described}, "/": {"get": {}}}})

    runner = at(Starlette(routes=[Route("/stream", stream), Route("/openapi.json", document)]))
    async with runner.lifespan():
        assert ["/stream"] == list(runner.endpoints)
        assert ["x"] == await streamed(runner, call(runner, "/stream"))
        with pytest.raises(InvalidRequest, match="takes no parameters"):
            await streamed(runner, call(runner, "/stream", n=1))
    assert [("GET", {"id": "1", "text": "a"})] == got


def server_of(path: str, answer: Callable[[Any], Any]) -> Starlette:
    """Somebody else's server, with one endpoint as Jina describes it."""
    body = {"properties": {"data": {"type": "array", "items": {"properties": {"text": {"type": "string"}}}}}}
    operation = {"requestBody": {"content": {"application/json": {"schema": body}}}}

    async def document(request: Any) -> Response:
        return JSONResponse({"paths": {path: {"post": operation}}})

    return Starlette(routes=[Route(path, answer, methods=["POST"]), Route("/openapi.json", document)])


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, {"detail": "ValueError('boom')"}, ExecutorError),
        (404, {"detail": "Not Found"}, UnknownEndpoint),
        (413, "too much", TooLarge),
        (418, "a teapot", InvalidRequest),
        (502, "<html>", Unavailable),
        (503, "busy", Unavailable),
        (504, "late", DeadlineExceeded),
        (422, {"detail": [{"loc": ["body", "data", "list[In]", 0, "text"], "msg": "Field required"}]}, InvalidDocs),
    ],
)
async def test_another_servers_errors_are_ours_by_their_status(status: int, body: Any, error: Any) -> None:
    async def answer(request: Any) -> Response:
        return HTMLResponse(body, status) if isinstance(body, str) else JSONResponse(body, status)

    runner = at(server_of("/foo", answer))
    async with runner.lifespan():
        with pytest.raises(error) as raised:
            await runner.call(call(runner, "/foo"))
    assert type(raised.value) is error
    if status == 422:
        assert [0, "text"] == raised.value.errors[0]["loc"]
        assert "0.text: Field required" == str(raised.value)


def test_an_error_of_ours_is_itself_again_with_when_to_come_back() -> None:
    body = b'{"detail": "full", "error": {"type": "Overloaded", "id": "x", "retriable": true}}'
    error = error_of(503, {"retry-after": "2", "retry-after-ms": "1250"}, body)
    assert (Overloaded, "full", 1.25) == (type(error), str(error), getattr(error, "retry_after", None))


@pytest.mark.parametrize("text", [b"", b"\xff", b"[1]", b'{"detail": {"a": 1}}', b'{"error": {"type": 3}}'])
def test_an_error_of_another_server_is_still_one(text: bytes) -> None:
    error = error_of(500, {"retry-after": "Mon, 01 Jan 2030 00:00:00 GMT"}, text)
    assert isinstance(error, JinaASGIError)
    assert type(error) is ExecutorError


async def test_a_url_of_something_else_is_said_to_be_that() -> None:
    async def page(request: Any) -> Response:
        return HTMLResponse("<h1>hello</h1>")

    app = Starlette(routes=[Route("/{path:path}", page)])
    with pytest.raises(ProtocolError, match="is it the right URL"):
        async with at(app).lifespan():
            pass


async def test_a_stream_that_breaks_off_is_no_stream_that_ended() -> None:
    async def stream(request: Any) -> Response:
        return StreamingResponse(
            iter([b'event: update\r\ndata: {"text": "x"}\r\n\r\n']), media_type="text/event-stream"
        )

    async def described(request: Any) -> Response:
        async with client(JinaASGI(Model, wait_ready=True)) as http:
            return JSONResponse((await http.get("/-/endpoints")).json())

    app = Starlette(routes=[Route("/count", stream, methods=["POST"]), Route("/-/endpoints", described)])
    runner = at(app)
    async with runner.lifespan():
        steps = runner.stream(call(runner, "/count"))
        assert "x" == (await anext(steps)).typed[0]["text"]
        with pytest.raises(ReplicaDied, match="broke off"):
            await anext(steps)


async def test_a_server_that_is_not_there_is_not_ready() -> None:
    with pytest.raises(NotReady, match="cannot connect to http://127"):
        async with HttpRunner(f"http://user:secret@127.0.0.1:{free_port()}").lifespan():
            pass


async def test_a_server_with_other_endpoints_than_those_given_is_refused() -> None:
    class Other(Executor):
        @requests(on="/upper")
        async def upper(self, docs: DocList[Vector]) -> DocList[Vector]:
            return docs

    async with mounted() as app:
        with pytest.raises(ProtocolError, match="/upper"):
            async with at(app, "http://test/lm", endpoints=Deployment(Other).endpoints).lifespan():
                pass


async def test_a_deadline_holds_though_the_server_does_not_know_it() -> None:
    async def answer(request: Any) -> Response:
        await request.body()
        await request.receive()  # until the client leaves
        return JSONResponse({})

    runner = at(server_of("/foo", answer))
    async with runner.lifespan():
        with pytest.raises(DeadlineExceeded):
            await runner.call(call(runner, "/foo", context=Context("r", deadline=time.monotonic() + 0.05)))


async def test_a_runner_says_what_it_cannot_do() -> None:
    async with mounted() as app:
        runner = at(app, "http://test/lm")
        with pytest.raises(NotReady, match="once the lifespan has started"):
            _ = runner.endpoints
        async with runner.lifespan():
            with pytest.raises(NotReady, match="open already"):
                async with runner.lifespan():
                    pass
            with pytest.raises(InvalidDocs, match="ask for a stream"):
                await runner.call(call(runner, "/count"))
            assert ["A!"] == await streamed(runner, call(runner, "/upper", end="!"))
        with pytest.raises(NotReady, match="stopped"):
            runner.admit("/upper")


async def test_a_server_that_does_not_say_what_it_serves_is_not_waited_for_long() -> None:
    async def silent(request: Any) -> Response:
        await request.body()
        await request.receive()  # until the client leaves
        return JSONResponse({})

    app = Starlette(routes=[Route("/{path:path}", silent)])
    with pytest.raises(NotReady, match=r"did not describe its endpoints within 0\.05 s"):
        async with at(app, startup_timeout=0.05).lifespan():
            pass


async def test_another_server_that_lacks_what_was_given_is_refused() -> None:
    async def answer(request: Any) -> Response:
        return JSONResponse({})

    with pytest.raises(ProtocolError, match="/count, /double, /upper"):
        async with at(server_of("/foo", answer), endpoints=Deployment(Model).endpoints).lifespan():
            pass


async def test_a_schema_of_another_server_keeps_what_it_refers_to() -> None:
    inner = {"type": "object", "properties": {"text": {"type": "string"}}}
    outer = {"type": "object", "properties": {"inner": {"$ref": "#/components/schemas/In"}}}
    body = {"properties": {"data": {"anyOf": [{"items": {"$ref": "#/components/schemas/Out"}, "type": "array"}]}}}
    operation = {"requestBody": {"content": {"application/json": {"schema": body}}}}
    document = {"paths": {"/foo": {"post": operation}}, "components": {"schemas": {"In": inner, "Out": outer}}}
    schema = endpoints_of(document)["/foo"].input
    assert ("Out", ["inner"]) == (schema.name, [field.name for field in schema.fields])
    moved = {"type": "object", "properties": {"inner": {"$ref": "#/$defs/In"}}}
    assert {**moved, "$defs": {"In": inner}} == schema.json_schema


def test_a_url_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(DefinitionError, match="http://models"):
        HttpRunner("models:8000")
