"""A host's own routes that ask a Deployment themselves: they wait as endpoints do, and answer errors alike."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import jina_asgi.fastapi
import jina_asgi.starlette
from jina_asgi import (
    Context,
    DeadlineExceeded,
    DefinitionError,
    Deployment,
    Executor,
    ExecutorInputError,
    Flow,
    JinaASGI,
    NotReady,
    Overloaded,
    ReplicaDied,
    mount,
    requests,
)
from jina_asgi.testing import ASGITransport, SocketRefused, client, websocket

HI = {"data": [{"text": "hi"}]}


class Text(BaseModel):
    text: str


class Shout(Executor):
    def __init__(self, gate: threading.Event | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert gate is None or gate.wait(20.0)

    @requests(on="/shout")
    def shout(self, docs: list[Text]) -> list[Text]:
        for doc in docs:
            if doc.text in ERRORS:
                raise ERRORS[doc.text]()
        return [Text(text=doc.text.upper()) for doc in docs]

    @requests(on="/letters")
    async def letters(self, doc: Text) -> AsyncIterator[Text]:
        for letter in doc.text:
            yield Text(text=letter)


#: What the Executor raises, by the text that asks for it.
ERRORS: dict[str, Callable[[], Exception]] = {
    "input": lambda: ExecutorInputError("no digits, please"),
    "own": lambda: ValueError("a secret"),
    "full": lambda: Overloaded("the queue is full", retry_after=1.5),
    "died": lambda: ReplicaDied("the process that ran the call is gone"),
    "late": lambda: DeadlineExceeded("the deadline has passed"),
}


def starlette_app(source: Any, **options: Any) -> Any:
    async def own(request: Request) -> JSONResponse:
        return JSONResponse([doc.text for doc in await source.call("/shout", await request.json())])

    app = Starlette(routes=[Route("/own", own, methods=["POST"])])
    jina_asgi.starlette.handlers(app)
    mount(app, "/lm", source, **options)
    return app


def fastapi_app(source: Any, **options: Any) -> Any:
    app = FastAPI()

    @app.post("/own")
    async def own(docs: list[Any]) -> list[str]:
        return [doc.text for doc in await source.call("/shout", docs)]

    jina_asgi.fastapi.handlers(app)
    jina_asgi.fastapi.include(app, source, prefix="/lm", **options)
    return app


hosts = pytest.mark.parametrize("host", [starlette_app, fastapi_app])
sources = pytest.mark.parametrize(
    "made", [lambda **given: Deployment(uses=Shout, **given), lambda **given: Flow().add(uses=Shout, **given)]
)


def without_id(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """An answer, less what no two have in common."""
    body = answer.json()
    assert len(body["error"].pop("id")) == 16
    return answer.status_code, body, {k: v for k, v in answer.headers.items() if k != "content-length"}


@hosts
@sources
async def test_a_call_of_a_route_of_ones_own_waits_for_loading_to_end(host: Any, made: Any) -> None:
    gate = threading.Event()
    async with client(host(made(uses_with={"gate": gate}))) as http:
        asked = [asyncio.create_task(http.post("/own", json=HI["data"])) for _ in range(3)]
        assert (await http.get("/lm/-/ready") if host is starlette_app else await http.get("/docs")).status_code
        assert not any(task.done() for task in asked)
        gate.set()
        assert [["HI"]] * 3 == [(await task).json() for task in asked]


@hosts
async def test_it_waits_no_longer_than_endpoints_do_and_answers_as_they_do(host: Any) -> None:
    gate = threading.Event()
    async with client(host(Deployment(uses=Shout, uses_with={"gate": gate}), startup_wait=0.01)) as http:
        own, theirs = await http.post("/own", json=HI["data"]), await http.post("/lm/shout", json=HI)
        gate.set()
    assert without_id(theirs) == without_id(own)
    assert (503, "1") == (own.status_code, own.headers["retry-after"])


@hosts
async def test_a_call_whose_deadline_passes_while_it_waits_raises_that(host: Any) -> None:
    gate = threading.Event()
    source = Deployment(uses=Shout, uses_with={"gate": gate})
    async with client(host(source)):
        with pytest.raises(DeadlineExceeded):
            await source.call("/shout", [Text(text="hi")], context=Context(deadline=time.monotonic() + 0.01))
        gate.set()


@pytest.mark.parametrize("text", ERRORS)
@hosts
async def test_an_error_is_answered_as_an_endpoint_answers_it(host: Any, text: str) -> None:
    docs = [{"text": text}]
    async with client(host(Deployment(uses=Shout), wait_ready=True)) as http:
        theirs, own = await http.post("/lm/shout", json={"data": docs}), await http.post("/own", json=docs)
    assert without_id(theirs) == without_id(own)


@hosts
async def test_documents_that_do_not_fit_are_listed_with_their_places(host: Any) -> None:
    async with client(host(Deployment(uses=Shout), wait_ready=True)) as http:
        answer = await http.post("/own", json=[{"text": "hi"}, {"txt": "no such field"}])
    assert (422, "InvalidDocs") == (answer.status_code, answer.json()["error"]["type"])
    assert [["body", "data", 1, "text"]] == [entry["loc"] for entry in answer.json()["detail"]]


async def test_a_stream_in_a_route_of_ones_own_waits_too() -> None:
    gate = threading.Event()
    source = Deployment(uses=Shout, uses_with={"gate": gate})
    async with client(starlette_app(source)):
        async with aclosing(source.stream("/letters", Text(text="ab"))) as letters:
            first = asyncio.ensure_future(anext(letters))
            await asyncio.wait([first], timeout=0.01)
            assert not first.done()
            gate.set()
            assert "a" == (await first).text


@hosts
async def test_where_no_lifespan_comes_a_route_of_ones_own_loads_it_as_an_endpoint_does(host: Any) -> None:
    source = Deployment(uses=Shout)
    app = host(source)
    async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://test") as http:
        assert ["HI"] == (await http.post("/own", json=HI["data"])).json()
        assert 200 == (await http.post("/lm/shout", json=HI)).status_code
    async with client(app) as http:  # and a lifespan that comes takes over
        assert ["HI"] == (await http.post("/own", json=HI["data"])).json()


@hosts
async def test_code_of_the_host_that_calls_it_after_the_lifespan_loads_nothing_anew(host: Any) -> None:
    source = Deployment(uses=Shout)
    app = host(source)
    async with client(app):
        assert "HI" == (await source.call("/shout", [Text(text="hi")]))[0].text
    with pytest.raises(NotReady):
        await source.call("/shout", [Text(text="hi")])
    async with client(app):
        assert "HI" == (await source.call("/shout", [Text(text="hi")]))[0].text


async def test_a_deployment_that_nothing_serves_is_called_within_async_with() -> None:
    source = Deployment(uses=Shout)
    with pytest.raises(NotReady):
        await source.call("/shout", [Text(text="hi")])
    async with source:
        assert "HI" == (await source.call("/shout", [Text(text="hi")]))[0].text


async def test_what_is_loaded_by_async_with_is_called_there_though_an_application_could_serve_it() -> None:
    source = Deployment(uses=Shout)
    asgi = JinaASGI(source)
    async with source:
        assert "HI" == (await source.call("/shout", [Text(text="hi")]))[0].text
        async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
            assert 200 == (await http.post("/shout", json=HI)).status_code  # loaded once, on this loop
    assert "stopped" == asgi.service.state


# One source, mounted twice.


async def test_a_call_to_one_mount_before_the_lifespan_does_no_harm_to_the_other() -> None:
    source = Deployment(uses=Shout)
    app = Starlette()
    for prefix in ("/a", "/b"):
        mount(app, prefix, source)
    for early in ("/a", "/b"):
        async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://test") as http:
            assert 200 == (await http.post(f"{early}/shout", json=HI)).status_code
        async with client(app) as http:
            for prefix in ("/a", "/b"):
                assert 200 == (await http.post(f"{prefix}/shout", json=HI)).status_code
                assert 200 == (await http.get(f"{prefix}/-/ready")).status_code


async def test_a_mount_that_no_lifespan_reaches_lives_with_the_one_that_it_does() -> None:
    source = Deployment(uses=Shout)
    reached, other = JinaASGI(source), JinaASGI(source)
    async with client(reached) as here, httpx.AsyncClient(transport=ASGITransport(other), base_url="http://t") as there:
        for http in (there, here, there):
            assert 200 == (await http.post("/shout", json=HI)).status_code
    assert ["stopped", "stopped"] == [asgi.service.state for asgi in (reached, other)]
    async with httpx.AsyncClient(transport=ASGITransport(other), base_url="http://test") as there:
        assert 200 == (await there.post("/shout", json=HI)).status_code  # now on its own
    await asyncio.to_thread(other.service.close)


@pytest.mark.parametrize("early", ["/alone", "/flow", "/outer"])
async def test_a_deployment_that_is_mounted_and_a_node_of_flows_that_are_lives_on_one_loop(early: str) -> None:
    shout = Deployment(uses=Shout, name="shout")
    flow = Flow(name="inner").add(uses=shout)
    app, other = Starlette(), Starlette()
    mount(app, "/alone", shout)
    mount(app, "/flow", flow)
    mount(other, "/outer", Flow().add(uses=flow))
    paths = [(app, "/alone/shout"), (app, "/flow/shout"), (other, "/outer/shout")]

    async def ask(app: Any, path: str) -> int:
        async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://test") as http:
            return (await http.post(path, json=HI)).status_code

    assert 200 == await ask(other if early == "/outer" else app, f"{early}/shout")
    async with client(app):
        assert [200] * 3 == [await ask(*each) for each in paths]
    assert [200] * 3 == [await ask(*each) for each in paths]  # all alone, in one thread


# WebSockets of one's own, and mistakes.


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_websocket_of_ones_own_is_closed_by_the_errors_status(is_open: bool) -> None:
    async def own(socket: WebSocket) -> None:
        if is_open:
            await socket.accept()
        raise Overloaded("the queue is full")

    app = Starlette(routes=[WebSocketRoute("/own", own)])
    jina_asgi.starlette.handlers(app)
    if is_open:
        async with websocket(app, "/own") as socket:
            with pytest.raises(Exception, match=r"4503.*the queue is full"):
                await socket.receive()
    else:
        with pytest.raises(SocketRefused) as refused:
            async with websocket(app, "/own"):
                pass
        assert (503, "Overloaded") == (refused.value.status, json.loads(refused.value.body)["error"]["type"])


async def test_handlers_that_come_too_late_are_refused() -> None:
    app = Starlette()
    async with client(app):
        with pytest.raises(DefinitionError, match="the app has started"):
            jina_asgi.starlette.handlers(app)


def test_handlers_are_for_starlette_and_what_is_made_of_it() -> None:
    with pytest.raises(DefinitionError, match="expected a Starlette or FastAPI app"):
        jina_asgi.starlette.handlers(JinaASGI(Shout))  # type: ignore[arg-type]
