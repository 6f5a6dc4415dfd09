"""A source whose endpoints are known once it has started: what is served before, what after, and after a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette

from jina_asgi import Context, DefinitionError, Deployment, Executor, JinaASGI, NotReady, mount, requests
from jina_asgi.fastapi import include, router
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.pipe import PipePair
from jina_asgi.runners.bridge import SharedRunner
from jina_asgi.runners.wrappers import ObserveRunner, Wrapper
from jina_asgi.testing import ASGITransport, client, events, websocket
from jina_asgi.types import Endpoint, Runner

HI = {"data": [{"text": "hi"}]}
MANAGEMENT = {
    "/",
    "/-/live",
    "/-/ready",
    "/-/status",
    "/-/metrics",
    "/-/endpoints",
    "/status",
    "/dry_run",
    "/openapi.json",
    "/docs",
}


class Text(BaseModel):
    text: str


class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/who")
    async def who(self, docs: list[Text], context: Context) -> list[Text]:
        return [Text(text=str(context.identity))]

    @requests(on="/two")
    async def two(self, doc: Text) -> AsyncIterator[Text]:
        yield doc
        yield doc


class Number(BaseModel):
    number: int


class Other(Executor):
    """What `Echo` becomes: one endpoint has gone, one takes other documents, one is new."""

    @requests(on="/echo")
    async def echo(self, docs: list[Number]) -> list[Number]:
        return docs

    @requests(on="/new")
    async def new(self, docs: list[Text]) -> list[Text]:
        return docs


class Late(PipePair):
    """The far side of a connection, whose hello tells the endpoints."""

    endpoints = FrameClient.endpoints

    def __init__(self, uses: type[Executor], gate: asyncio.Event | None = None) -> None:
        super().__init__(Deployment(uses).runner)
        self._gate = gate

    def becomes(self, uses: type[Executor]) -> None:
        """The next life runs other code."""
        self._runner = Deployment(uses).runner

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if self._gate is not None:
            await self._gate.wait()
        async with super().lifespan():
            yield


class Told(Wrapper):
    """A Runner that is told what its endpoints are; None: they are not known yet."""

    def __init__(self, inner: Runner, told: Mapping[str, Endpoint] | None) -> None:
        super().__init__(inner)
        self.told = told

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        if self.told is None:
            raise NotReady("not told yet")
        return self.told


def deployed(runner: Runner) -> Deployment:
    """A Deployment of a Runner that is no Executor in this process."""
    deployment = Deployment(Echo, name="late")
    deployment.runner = ObserveRunner(runner, "late")
    return deployment


async def text(http: httpx.AsyncClient, path: str, **extra: Any) -> str:
    answer = await http.post(path, json={**HI, **extra})
    assert answer.status_code == 200, answer.text
    value: str = answer.json()["data"][0]["text"]
    return value


async def waits(request: Any) -> asyncio.Task[httpx.Response]:
    """A request that is sent, and is not answered yet."""
    task: asyncio.Task[httpx.Response] = asyncio.create_task(request)
    await asyncio.wait([task], timeout=0.01)
    assert not task.done(), task.result().text
    return task


# Before it has started.


def test_it_is_made_before_its_endpoints_are_known() -> None:
    asgi = JinaASGI(deployed(Late(Echo)))
    assert asgi.routes.keys() == MANAGEMENT
    with pytest.raises(NotReady):
        len(asgi.endpoints)
    with pytest.raises(NotReady):
        asgi.openapi()


def test_endpoints_that_are_known_are_there_at_once() -> None:
    asgi = JinaASGI(Echo)
    assert list(asgi.endpoints) == ["/echo", "/who", "/two"]
    assert asgi.endpoints is asgi.endpoints
    assert asgi.routes.keys() == {*MANAGEMENT, "/echo", "/who", "/two", "/post"}


async def test_once_it_has_started_everything_is_served() -> None:
    asgi = JinaASGI(deployed(Late(Echo)), wait_ready=True)
    async with client(asgi) as http:
        assert list(asgi.endpoints) == ["/echo", "/who", "/two"]
        assert asgi.endpoints is asgi.endpoints
        assert asgi.routes.keys() == {*MANAGEMENT, "/echo", "/who", "/two", "/post"}
        assert await text(http, "/echo") == "hi"
        assert await text(http, "/post", exec_endpoint="/echo") == "hi"
        async with http.stream("GET", "/two", params={"text": "x"}) as response:
            assert [event.name async for event in events(response)] == ["update", "update", "end"]
        assert (await http.post("/echo", json={"data": [{"text": 5}]})).status_code == 422
        assert (await http.post("/none", json=HI)).status_code == 404
        document = (await http.get("/openapi.json")).json()
        assert list(document["paths"]) == ["/echo", "/who", "/two"]
        figures = (await http.get("/-/status")).json()["deployments"]["late"]
        assert figures["endpoints"] == {"/echo": "batch", "/who": "batch", "/two": "stream"}


async def test_while_it_loads_calls_wait_and_what_shows_its_state_does_not() -> None:
    gate = asyncio.Event()
    async with client(JinaASGI(deployed(Late(Echo, gate)))) as http:
        assert (await http.get("/-/live")).json() == {}
        assert (await http.get("/-/ready")).json()["detail"] == "still loading"
        figures = (await http.get("/-/status")).json()["deployments"]["late"]
        assert (figures["state"], "endpoints" in figures) == ("loading", False)
        assert (await http.get("/docs")).status_code == 200
        assert (await http.get("/dry_run")).json()["code"] == 1
        assert (await http.get("/-/none")).status_code == 404
        call = await waits(http.post("/echo", json=HI))
        posted = await waits(http.post("/post", json={**HI, "exec_endpoint": "/echo"}))
        stream = await waits(http.get("/two", params={"text": "x"}))
        unknown = await waits(http.post("/none", json=HI))
        head = await waits(http.head("/none"))
        get = await waits(http.get("/echo"))
        document = await waits(http.get("/openapi.json"))
        gate.set()
        assert (await call).json()["data"] == (await posted).json()["data"] == [{"text": "hi"}]
        assert [event.name async for event in events(await stream)] == ["update", "update", "end"]
        assert ((await unknown).status_code, (await unknown).json()["detail"]) == (404, "Not Found")
        assert ((await head).status_code, (await head).content) == (404, b"")
        assert ((await get).status_code, (await get).headers["allow"]) == (405, "POST")
        assert "/echo" in (await document).json()["paths"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/echo"), ("GET", "/two"), ("POST", "/post"), ("POST", "/none"), ("GET", "/openapi.json")],
)
async def test_who_has_waited_for_startup_wait_is_asked_to_come_back(method, path) -> None:
    gate = asyncio.Event()
    async with client(JinaASGI(deployed(Late(Echo, gate)), startup_wait=0)) as http:
        answer = await http.request(method, path, json=HI)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "NotReady")
        assert answer.headers["retry-after"] == "1"
        assert (await http.get("/-/live")).status_code == 200
        gate.set()


async def test_a_deadline_that_passes_while_it_loads_is_kept() -> None:
    gate = asyncio.Event()
    async with client(JinaASGI(deployed(Late(Echo, gate)))) as http:
        for path in ("/echo", "/none", "/post"):
            answer = await http.post(path, json=HI, headers={"x-request-timeout": "0.01"})
            assert answer.status_code == 504
        gate.set()


async def test_a_source_that_fails_to_load_says_so(caplog) -> None:
    class Broken(Executor):
        def __init__(self, **kwargs: Any) -> None:
            raise OSError("/secret: no weights")

        @requests(on="/x")
        async def x(self, docs: list[Text]) -> list[Text]:
            return docs

    asgi = JinaASGI(deployed(Late(Broken)))
    async with client(asgi) as http:
        answers = [await http.post("/x", json=HI), await http.get("/openapi.json"), await http.get("/-/ready")]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert not [answer for answer in answers if "/secret" in answer.text]
        assert (await http.get("/-/status")).json()["deployments"]["late"]["state"] == "failed"
        assert asgi.routes.keys() == MANAGEMENT


# Who may ask.


async def test_auth_is_asked_before_anything_is_reported_and_once() -> None:
    gate, asked = asyncio.Event(), list[str]()

    async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
        asked.append(endpoint)
        return headers.get("x-name")

    async with client(JinaASGI(deployed(Late(Echo, gate)), auth=auth)) as http:
        for path in ("/echo", "/none", "/post", "/openapi.json", "/-/status"):
            assert (await http.get(path)).status_code == 401
        assert (await http.get("/-/live")).status_code == 200
        asked.clear()
        headers = {"x-name": "ann"}
        who = await waits(http.post("/who", json=HI, headers=headers))
        document = await waits(http.get("/openapi.json", headers=headers))
        gate.set()
        assert (await who).json()["data"] == [{"text": "ann"}]
        assert (await document).status_code == 200
        assert asked == ["/who", "/openapi.json"]


async def test_post_asks_about_the_endpoint_too() -> None:
    async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
        return None if endpoint == "/who" else "somebody"

    gate = asyncio.Event()
    async with client(JinaASGI(deployed(Late(Echo, gate)), auth=auth)) as http:
        refused = await waits(http.post("/post", json={**HI, "exec_endpoint": "/who"}))
        allowed = await waits(http.post("/post", json={**HI, "exec_endpoint": "/echo"}))
        gate.set()
        assert ((await refused).status_code, (await allowed).status_code) == (401, 200)


# Later lives.


async def test_new_code_after_a_restart_is_what_is_served() -> None:
    late = Late(Echo)
    asgi = JinaASGI(deployed(late))
    async with client(asgi) as http:
        assert await text(http, "/echo") == "hi"
        assert "/new" not in (await http.get("/openapi.json")).json()["paths"]
    late.becomes(Other)
    async with client(asgi) as http:
        assert await text(http, "/new") == "hi"
        answer = await http.post("/echo", json={"data": [{"number": 1}]})
        assert answer.json()["data"] == [{"number": 1}]
        assert (await http.post("/who", json=HI)).status_code == 404
        assert list((await http.get("/openapi.json")).json()["paths"]) == ["/echo", "/new"]
        assert list((await http.get("/-/status")).json()["deployments"]["late"]["endpoints"]) == ["/echo", "/new"]
        assert list(asgi.endpoints) == ["/echo", "/new"]


async def test_calls_that_wait_for_a_restart_are_of_its_new_code() -> None:
    gate = asyncio.Event()
    gate.set()
    late = Late(Echo, gate)
    asgi = JinaASGI(deployed(late))
    async with client(asgi) as http:
        assert await text(http, "/echo") == "hi"
    late.becomes(Other)
    gate.clear()
    async with client(asgi) as http:
        call = await waits(http.post("/echo", json={"data": [{"number": 1}]}))
        posted = await waits(http.post("/post", json={"data": [{"number": 2}], "exec_endpoint": "/echo"}))
        document = await waits(http.get("/openapi.json"))
        gate.set()
        assert (await call).json()["data"] == [{"number": 1}]
        assert (await posted).json()["data"] == [{"number": 2}]
        assert "/new" in (await document).json()["paths"]


async def test_endpoints_that_were_known_and_change_are_followed() -> None:
    told = Told(Deployment(Echo).runner, Deployment(Echo).endpoints)
    asgi = JinaASGI(deployed(told))
    assert "/who" in asgi.endpoints
    told.told = {name: endpoint for name, endpoint in told.endpoints.items() if name != "/who"}
    async with client(asgi) as http:
        assert await text(http, "/echo") == "hi"
        assert (await http.post("/who", json=HI)).status_code == 404
        assert list((await http.get("/openapi.json")).json()["paths"]) == ["/echo", "/two"]


async def test_the_same_endpoints_are_made_into_applications_once() -> None:
    told = Told(Deployment(Echo).runner, None)
    asgi = JinaASGI(deployed(told))
    told.told = Deployment(Echo).endpoints
    made = set[int]()
    for _ in range(3):
        async with client(asgi) as http:
            assert await text(http, "/echo") == "hi"
            made.add(id(asgi.endpoints))
    assert made == {id(asgi.endpoints)}


async def test_endpoints_that_are_reported_after_the_start_are_served_from_then_on() -> None:
    inner = Deployment(Echo).runner
    told = Told(inner, None)
    asgi = JinaASGI(deployed(told))
    async with client(asgi) as http:
        for path in ("/echo", "/post"):
            answer = await http.post(path, json=HI)
            assert (answer.status_code, answer.json()["error"]["type"]) == (503, "NotReady")
        assert (await http.get("/openapi.json")).status_code == 503
        told.told = inner.endpoints
        assert (await http.get("/openapi.json")).status_code == 200
        assert await text(http, "/echo") == "hi"
        assert await text(http, "/post", exec_endpoint="/echo") == "hi"
        assert "/echo" in asgi.routes


# Paths that are taken.


@pytest.mark.parametrize("name", [*sorted(MANAGEMENT), "/-/other", "/post"])
async def test_an_endpoint_on_a_reserved_path_takes_nothing_from_us(name, caplog) -> None:
    inner = Deployment(Echo).runner
    told = Told(inner, None)
    asgi = JinaASGI(deployed(told), wait_ready=True)
    told.told = {**inner.endpoints, name: replace(inner.endpoints["/echo"], name=name)}
    async with client(asgi) as http, client(JinaASGI(Echo), base_url="http://usual") as usual:
        await usual.post("/echo", json=HI)  # it has loaded
        for method in ("GET", "POST"):
            ours, theirs = await http.request(method, name, json=HI), await usual.request(method, name, json=HI)
            assert ours.status_code == theirs.status_code
        assert await text(http, "/echo") == "hi"
        assert name not in asgi.endpoints
        assert name not in (await http.get("/openapi.json")).json()["paths"]
        assert (await http.post("/post", json={**HI, "exec_endpoint": name})).status_code == 404
    assert f"{name!r} is reserved" in caplog.text


# In a host, and without one.


@pytest.mark.parametrize("host", [Starlette, FastAPI], ids=lambda host: host.__name__)
async def test_it_may_be_mounted(host) -> None:
    app = host()
    mount(app, "/lm", deployed(Late(Echo)))
    async with client(app) as http:
        assert await text(http, "/lm/echo") == "hi"
        document = (await http.get("/lm/openapi.json")).json()
        assert document["servers"] == [{"url": "/lm"}]
        assert (await http.post("/lm/none", json=HI)).status_code == 404


async def test_mounted_twice_it_lives_once_and_both_serve_it() -> None:
    late = Late(Echo)
    deployment = deployed(SharedRunner(late))
    app = Starlette()
    mount(app, "/a", deployment)
    mount(app, "/b", deployment)
    for uses, path in ((Echo, "who"), (Other, "new")):
        late.becomes(uses)
        async with client(app) as http:
            for prefix in ("/a", "/b"):
                assert (await http.post(f"{prefix}/{path}", json=HI)).status_code == 200


async def test_calls_go_straight_to_the_sources_own_runner() -> None:
    for deployment in (deployed(Late(Echo)), Deployment(Echo)):
        asgi = JinaASGI(deployment)
        async with asgi.lifespan():
            runner = await asgi.service.runner()
            assert (runner.call, runner.admit) == (deployment.runner.call, deployment.runner.admit)


async def test_a_runner_without_figures_has_a_status() -> None:
    deployment = deployed(Late(Echo))
    deployment.runner = Late(Echo)  # type: ignore[assignment]
    async with client(JinaASGI(deployment)) as http:
        assert await text(http, "/echo") == "hi"
        assert (await http.get("/-/status")).json()["deployments"]["late"]["state"] == "ready"


async def test_cors_covers_what_comes_late() -> None:
    headers = {"origin": "https://any.test"}
    async with client(JinaASGI(deployed(Late(Echo)), cors=True), headers=headers) as http:
        answer = await http.post("/echo", json=HI)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("path", ["/echo", "/post"])
async def test_without_a_lifespan_it_starts_when_it_is_asked(path) -> None:
    late = Late(Echo)
    asgi = JinaASGI(deployed(late))
    async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
        assert await text(http, path, exec_endpoint="/echo") == "hi"
        assert "jina-asgi-loop" in {thread.name for thread in threading.enumerate()}
        await asyncio.to_thread(asgi.service.close)
        late.becomes(Other)
        answer = await http.post("/echo", json={"data": [{"number": 1}]})
        assert answer.json()["data"] == [{"number": 1}]
    await asyncio.to_thread(asgi.service.close)


def test_fastapi_routes_need_the_endpoints_where_they_are_written() -> None:
    for define in (router, lambda source: include(FastAPI(), source, prefix="/lm")):
        with pytest.raises(DefinitionError, match=r"'late'.*give the Executor's class.*or use mount"):
            define(deployed(Late(Echo)))


# Over the WebSocket.


async def test_a_websocket_s_calls_wait_for_the_endpoints_and_see_what_they_become() -> None:
    gate = asyncio.Event()
    late = Late(Echo, gate)
    asgi = JinaASGI(deployed(late))
    async with websocket(asgi) as socket:
        await socket.send({"id": 1, "endpoint": "/two", **HI})
        await socket.send({"id": 2, "endpoint": "/new", **HI})
        gate.set()
        said = [await socket.receive() for _ in range(4)]
        assert {1: ["data", "data", "end"], 2: ["error"]} == {
            number: [event["event"] for event in said if event["id"] == number] for number in (1, 2)
        }
    late.becomes(Other)
    async with websocket(asgi) as socket:
        await socket.send({"id": 1, "endpoint": "/new", **HI})
        assert "data" == (await socket.receive())["event"]
