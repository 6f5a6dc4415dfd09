"""The four ways a lifespan comes, or does not: what an application does at its start, at its end, and in between."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from docarray import BaseDoc, DocList
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jina_asgi import Deployment, Executor, JinaASGI, mount, requests
from jina_asgi.fastapi import include, router
from jina_asgi.testing import ASGITransport, client
from tests.doubles.rig import Journal, Served

BODY = {"data": [{"text": "hi"}]}


class Text(BaseDoc):
    text: str = ""


class Story:
    """What happened, and a gate that loading waits at."""

    def __init__(self, *, closed: bool = False, failing: bool = False) -> None:
        self.told: list[str] = []
        self.gate, self.loading, self.began, self.unloaded = (threading.Event() for _ in range(4))
        if not closed:
            self.gate.set()
        story = self

        class Model(Executor):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                story.loading.set()
                assert story.gate.wait(20.0)
                if failing:
                    raise RuntimeError("SECRET reason")
                story.told.append("loaded")

            def close(self) -> None:
                story.told.append("unloaded")
                story.unloaded.set()

            @requests(on="/echo")
            def echo(self, docs: DocList[Text]) -> DocList[Text]:
                return docs

            @requests(on="/hang")
            async def hang(self, docs: DocList[Text]) -> DocList[Text]:
                story.began.set()
                await asyncio.Event().wait()
                return docs

        self.model = Model

    def host_lifespan(self, app: Any) -> AbstractAsyncContextManager[dict[str, str]]:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[dict[str, str]]:
            self.told.append("host starts")
            yield {"told": "by the host"}
            self.told.append("host ends")

        return lifespan()


async def told(request: Request) -> JSONResponse:
    return JSONResponse(request.state.told)


def starlette_host(story: Story) -> Any:
    app = Starlette(routes=[Route("/told", told)], lifespan=story.host_lifespan)
    mount(app, "/lm", story.model, wait_ready=True)
    return app


def fastapi_host(story: Story) -> Any:
    app = FastAPI(lifespan=story.host_lifespan)
    app.add_route("/told", told)
    mount(app, "/lm", story.model, wait_ready=True)
    return app


def fastapi_host_with_router(story: Story) -> Any:
    app = FastAPI(lifespan=story.host_lifespan)
    app.add_route("/told", told)
    app.include_router(router(story.model, wait_ready=True), prefix="/lm")
    return app


def fastapi_host_that_includes(story: Story) -> Any:
    app = FastAPI(lifespan=story.host_lifespan)
    app.add_route("/told", told)
    include(app, story.model, prefix="/lm", wait_ready=True)
    return app


HOSTS = [starlette_host, fastapi_host, fastapi_host_with_router, fastapi_host_that_includes]


@pytest.mark.parametrize("make", HOSTS)
async def test_a_host_keeps_its_own_lifespan_around_ours(make: Callable[[Story], Any]) -> None:
    story = Story()
    for _ in range(2):  # a restart
        story.told.clear()
        async with client(make(story)) as http:
            assert "by the host" == (await http.get("/told")).json()
            assert 200 == (await http.post("/lm/echo", json=BODY)).status_code
            assert ["host starts", "loaded"] == story.told
        assert ["host starts", "loaded", "unloaded", "host ends"] == story.told


@pytest.mark.parametrize("make", [lambda story: JinaASGI(story.model), starlette_host, fastapi_host_that_includes])
async def test_the_same_app_lives_again_after_its_end(make: Callable[[Story], Any]) -> None:
    story = Story()
    app = make(story)
    path = "/echo" if isinstance(app, JinaASGI) else "/lm/echo"
    for _ in range(3):
        async with client(app) as http:
            assert 200 == (await http.post(path, json=BODY)).status_code
    assert ["loaded", "unloaded"] * 3 == [word for word in story.told if "host" not in word]


async def test_one_application_in_two_lifespans_loads_once() -> None:
    story = Story()
    asgi = JinaASGI(story.model, wait_ready=True)
    async with asgi.lifespan(), asgi.lifespan():
        assert ["loaded"] == story.told
    assert ["loaded", "unloaded"] == story.told


BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def before() -> None:
    """What other tests left is not what these do."""
    BEFORE.clear()
    BEFORE.update(threading.enumerate())


def threads() -> set[str]:
    """Those that serve; a process has one more for all its synchronous Clients, and one for who has no lifespan."""
    begun = set(threading.enumerate()) - BEFORE
    names = {thread.name for thread in begun if thread.name.startswith(("executor", "jina-asgi"))}
    return names - {"jina-asgi-client", "jina-asgi-loop"}


async def test_without_a_lifespan_the_first_call_starts_it_in_a_thread() -> None:
    story = Story()
    asgi = JinaASGI(story.model)
    async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
        assert 200 == (await http.get("/-/live")).status_code
        assert [] == story.told
        assert 200 == (await http.post("/echo", json=BODY)).status_code
        assert set() != threads()
        assert 200 == (await http.get("/-/ready")).status_code
    asgi.service.close()
    assert ["loaded", "unloaded"] == story.told
    assert set() == threads()


def test_an_app_that_started_in_a_thread_serves_every_loop() -> None:
    story = Story()
    asgi = JinaASGI(story.model)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
            return (await http.post("/echo", json=BODY)).status_code

    assert [200, 200] == [asyncio.run(ask()) for _ in range(2)]
    asgi.service.close()
    assert ["loaded", "unloaded"] == story.told


async def test_a_lifespan_that_comes_after_the_first_call_takes_over() -> None:
    story = Story()
    asgi = JinaASGI(story.model)
    async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
        await http.post("/echo", json=BODY)
    async with client(asgi) as http:
        assert 200 == (await http.post("/echo", json=BODY)).status_code
        assert ["loaded"] == story.told
    assert ["loaded", "unloaded"] == story.told


def asked_alone(app: Any, path: str) -> None:
    async def ask() -> int:
        async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://test") as http:
            return (await http.post(path, json=BODY)).status_code

    assert 200 == asyncio.run(ask())


def test_an_application_that_no_lifespan_reached_and_that_is_dropped_closes_its_model_and_ends_its_threads() -> None:
    gc.disable()
    try:
        for _ in range(20):
            story = Story()
            asked_alone(JinaASGI(story.model), "/echo")
            assert story.unloaded.wait(5.0)
            assert ["loaded", "unloaded"] == story.told
    finally:
        gc.enable()
    for thread in set(threading.enumerate()) - BEFORE:
        if thread.name in threads():
            thread.join(5.0)
    assert set() == threads()


@pytest.mark.parametrize("make", [starlette_host, fastapi_host_that_includes])
def test_of_hosts_that_no_lifespan_reached_and_that_are_dropped_none_outlives_the_next(make: Any) -> None:
    """A host refers to itself, so that the garbage collector ends it; what is frozen is looked at as the next begins."""
    stories = [Story() for _ in range(5)]
    for before, story in zip([None, *stories], stories, strict=False):
        asked_alone(make(story), "/lm/echo")
        assert before is None or before.unloaded.wait(5.0)
    gc.unfreeze()
    gc.collect()
    assert stories[-1].unloaded.wait(5.0)
    assert [["loaded", "unloaded"]] * 5 == [story.told for story in stories]


async def test_closing_a_thread_of_its_own_wakes_waiting_callers() -> None:
    story = Story()
    asgi = JinaASGI(Deployment(uses=story.model, grace=0.0))
    async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
        await http.post("/echo", json=BODY)
        waiting = asyncio.create_task(http.post("/hang", json=BODY))
        assert await asyncio.to_thread(story.began.wait, 5.0)
        await asyncio.to_thread(asgi.service.close)
        answer = await waiting
    assert [503, "ReplicaDied"] == [answer.status_code, answer.json()["error"]["type"]]
    assert set() == threads()


async def test_a_failure_to_load_is_reported_and_the_process_stays() -> None:
    story = Story(failing=True)
    async with client(JinaASGI(story.model)) as http:
        answer = await http.post("/echo", json=BODY)
        ready = await http.get("/-/ready")
        assert 200 == (await http.get("/-/live")).status_code
    for told in (answer, ready):
        assert 503 == told.status_code
        assert int(told.headers["retry-after"]) >= 1
        assert "RuntimeError" in told.json()["detail"]
        assert "SECRET" not in told.text
    assert set() == threads()


async def test_with_wait_ready_a_failure_to_load_fails_the_startup() -> None:
    with pytest.raises(RuntimeError, match="startup failed"):
        async with client(JinaASGI(Story(failing=True).model, wait_ready=True)):
            pass
    assert set() == threads()


async def test_calls_wait_for_loading_a_while_then_are_asked_to_come_back() -> None:
    story = Story(closed=True)
    async with client(JinaASGI(story.model, startup_wait=0.05)) as http:
        early = await http.post("/echo", json=BODY)
        assert [200, 503] == [(await http.get(path)).status_code for path in ("/-/live", "/-/ready")]
        story.gate.set()
        async with asyncio.timeout(5.0):
            while (late := await http.post("/echo", json=BODY)).status_code == 503:
                pass
    assert [503, "1", True] == [early.status_code, early.headers["retry-after"], early.json()["error"]["retriable"]]
    assert 200 == late.status_code


async def test_a_call_that_comes_while_it_loads_is_answered_once_it_has() -> None:
    story = Story(closed=True)
    async with client(JinaASGI(story.model)) as http:
        asked = [asyncio.create_task(http.post("/echo", json=BODY)) for _ in range(20)]
        await http.get("/-/ready")
        assert not any(task.done() for task in asked)
        story.gate.set()
        assert [200] * 20 == [(await task).status_code for task in asked]


async def test_leaving_while_it_loads_abandons_that_and_closes_what_was_made() -> None:
    story = Story(closed=True)
    asgi = JinaASGI(story.model)
    async with asyncio.timeout(5.0):
        async with client(asgi):
            assert await asyncio.to_thread(story.loading.wait, 5.0)
        assert "stopped" == asgi.service.state
    story.gate.set()
    assert await asyncio.to_thread(story.unloaded.wait, 5.0)
    assert ["loaded", "unloaded"] == story.told


async def test_ready_says_draining_while_what_runs_is_finished() -> None:
    story = Story()
    asgi = JinaASGI(Deployment(uses=story.model, grace=30.0), wait_ready=True)
    transport = ASGITransport(asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        life = asgi.lifespan()
        await life.__aenter__()
        hanging = asyncio.create_task(http.post("/hang", json=BODY))
        assert await asyncio.to_thread(story.began.wait, 5.0)
        ending = asyncio.create_task(life.__aexit__(None, None, None))
        async with asyncio.timeout(5.0):
            while (ready := await http.get("/-/ready")).status_code == 200:
                pass
        assert "draining" in ready.json()["detail"]
        assert 503 == (await http.post("/echo", json=BODY)).status_code
        asgi.service.hurry()
        await ending
        assert "draining" in (await hanging).json()["detail"]
    assert set() == threads()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("kind", "option"),
    [("gunicorn-uvicorn", ()), ("gunicorn-asgi", ("--asgi-lifespan", "off")), ("hypercorn", ())],
)
def test_a_plain_mount_serves_where_no_lifespan_comes_and_is_closed_at_the_end(
    journal: Journal, kind: str, option: tuple[str, ...]
) -> None:
    with Served(kind, "tests.doubles.apps:plain", *option, env=journal.env) as server, server.client() as http:
        assert 200 == http.post("/lm/echo", json={"data": [{"name": "x"}]}).status_code
        assert 200 == http.get("/lm/-/ready").status_code
        server.signal(signal.SIGTERM)
        server.ended(within=15.0)
        assert "Traceback" not in server.log
    assert ["loading", "loaded", "unloaded"] == journal.so_far()


@pytest.mark.processes
def test_a_slow_start_is_live_at_once_and_serves_nothing_early(journal: Journal) -> None:
    with Served("gunicorn-uvicorn", "tests.doubles.apps:loading", env={**journal.env, "LOAD": "1.5"}) as server:
        with server.client() as http:
            assert [200, 503] == [http.get(path).status_code for path in ("/-/live", "/-/ready")]
            assert 503 == http.post("/echo", json={"data": [{"name": "x"}]}).status_code
            assert "loaded" not in journal.so_far()
            journal.until("loaded")
            while (answer := http.post("/echo", json={"data": [{"name": "x"}]})).status_code == 503:
                assert "still loading" in answer.text
            assert [200, 200] == [answer.status_code, http.get("/-/ready").status_code]


@pytest.mark.processes
def test_a_model_that_cannot_load_leaves_the_server_up(journal: Journal) -> None:
    env = {**journal.env, "FAIL": "1"}
    with Served("gunicorn-uvicorn", "tests.doubles.apps:loading", "--workers", "2", env=env) as server:
        with server.client() as http:
            while "failed to load" not in http.get("/-/ready").json()["detail"]:
                pass
            answer = http.post("/echo", json={"data": [{"name": "x"}]})
            assert 200 == http.get("/-/live").status_code
        assert [503, "1"] == [answer.status_code, answer.headers["retry-after"]]
        assert "SECRET" not in answer.text
