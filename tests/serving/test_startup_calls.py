"""A host that calls what it serves in its own startup: that loads once, is one copy for all, and is closed once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from jina_asgi import Deployment, Executor, Flow, JinaASGI, NotReady, mount, requests
from jina_asgi.fastapi import include, router
from jina_asgi.serving.lifecycle import close_alone
from jina_asgi.testing import ASGITransport, client

HI = {"data": [{"text": "hi"}]}


class Text(BaseModel):
    text: str = ""


class Story:
    """An Executor class, and what happened to its instances."""

    def __init__(self) -> None:
        self.events: list[str] = []
        story = self

        class Model(Executor):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                story.events.append("loaded")

            def close(self) -> None:
                story.events.append("closed")

            @requests(on="/where")
            async def where(self, docs: list[Text]) -> list[Text]:
                return [Text(text=threading.current_thread().name) for _ in docs]

        self.model = Model


Startup = Callable[[Any], Awaitable[Any]]


def hosted(startup: Startup, shutdown: Startup | None = None) -> Any:
    """A lifespan of a host that calls these with its app."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        await startup(app)
        yield
        if shutdown is not None:
            await shutdown(app)

    return lifespan


def starlette_mount(source: Any, lifespan: Any) -> Any:
    app = Starlette(lifespan=lifespan)
    mount(app, "/lm", source)
    return app


def fastapi_mount(source: Any, lifespan: Any) -> Any:
    app = FastAPI(lifespan=lifespan)
    mount(app, "/lm", source)
    return app


def fastapi_include(source: Any, lifespan: Any) -> Any:
    app = FastAPI(lifespan=lifespan)
    include(app, source, prefix="/lm")
    return app


def fastapi_router(source: Any, lifespan: Any) -> Any:
    app = FastAPI(lifespan=lifespan)
    app.include_router(router(source), prefix="/lm")
    return app


def composed_by_hand(source: Any, lifespan: Any) -> Any:
    asgi = JinaASGI(source)

    @asynccontextmanager
    async def both(app: Any) -> AsyncIterator[None]:
        async with lifespan(app), asgi.lifespan():
            yield

    app = Starlette(lifespan=both)
    app.mount("/lm", asgi)
    return app


def around_our_own(source: Any, lifespan: Any) -> Any:
    """An ASGI application that runs something before it hands its lifespan on."""
    asgi = JinaASGI(source)
    app = Starlette(routes=[])
    app.mount("/lm", asgi)

    async def host(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        async with lifespan(host):
            await asgi(scope, receive, send)

    return host


hosts = pytest.mark.parametrize(
    "host",
    [starlette_mount, fastapi_mount, fastapi_include, fastapi_router, composed_by_hand, around_our_own],
    ids=lambda host: host.__name__,
)
sources = pytest.mark.parametrize(
    "made", [lambda model: Deployment(uses=model), lambda model: Flow().add(uses=model)], ids=["deployment", "flow"]
)


async def asked(app: Any, path: str = "/lm/where") -> int:
    async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://test") as http:
        return (await http.post(path, json=HI)).status_code


@hosts
@sources
def test_what_the_hosts_startup_calls_is_loaded_once_and_closed_once(host: Any, made: Any) -> None:
    story = Story()
    source = made(story.model)
    app = host(source, hosted(lambda _: source.call("/where", [Text()])))

    async def serve() -> None:
        async with client(app) as http:
            assert [200] * 2 == [(await http.post("/lm/where", json=HI)).status_code for _ in range(2)]
            assert ["loaded"] == story.events
        assert ["loaded", "closed"] == story.events

    for _ in range(2):  # and again, where the application is started anew
        story.events.clear()
        asyncio.run(serve())


@hosts
async def test_what_the_hosts_startup_asks_over_its_own_routes_is_loaded_once(host: Any) -> None:
    story = Story()
    source = Deployment(uses=story.model)
    statuses = []

    async def startup(app: Any) -> None:
        statuses.append(await asked(app))

    async with client(host(source, hosted(startup))) as http:
        statuses.append((await http.post("/lm/where", json=HI)).status_code)
    assert [200, 200] == statuses
    assert ["loaded", "closed"] == story.events


@pytest.mark.parametrize("host", [starlette_mount, fastapi_mount, fastapi_include], ids=lambda host: host.__name__)
async def test_where_the_host_is_known_to_start_it_is_loaded_on_the_hosts_own_loop(host: Any) -> None:
    source = Deployment(uses=Story().model)
    threads = []

    async def startup(app: Any) -> None:
        threads.append((await source.call("/where", [Text()]))[0].text)

    async with client(host(source, hosted(startup))) as http:
        threads.append((await http.post("/lm/where", json=HI)).json()["data"][0]["text"])
    assert [threading.current_thread().name] * 2 == threads


@pytest.mark.parametrize("host", [starlette_mount, fastapi_mount, fastapi_include, fastapi_router, composed_by_hand])
async def test_what_was_loaded_is_closed_where_the_hosts_startup_fails_afterwards(host: Any) -> None:
    story = Story()
    source = Deployment(uses=story.model)

    async def startup(app: Any) -> None:
        await source.call("/where", [Text()])
        raise RuntimeError("the host's own")

    app = host(source, hosted(startup))
    with pytest.raises(RuntimeError):
        async with client(app):
            pass
    if host in (starlette_mount, fastapi_mount, fastapi_include):  # the others cannot know that a lifespan was to come
        assert ["loaded", "closed"] == story.events
    await asyncio.to_thread(close_alone)
    assert ["loaded", "closed"] == story.events


@hosts
async def test_the_hosts_shutdown_loads_nothing_anew(host: Any) -> None:
    story = Story()
    source = Deployment(uses=story.model)

    async def shutdown(app: Any) -> None:
        with pytest.raises(NotReady):
            await source.call("/where", [Text()])
        story.events.append("host ended")

    async with client(host(source, hosted(lambda _: source.call("/where", [Text()]), shutdown))):
        pass
    assert ["loaded", "closed", "host ended"] == story.events


@sources
async def test_one_source_at_two_mounts_and_in_a_flow_is_loaded_once_whichever_is_asked_first(made: Any) -> None:
    for first in ("/a", "/b", "/flow"):
        story = Story()
        source = made(story.model)
        app = Starlette(lifespan=hosted(lambda app, first=first: asked(app, f"{first}/where")))  # type: ignore[misc]
        for path, each in (("/a", source), ("/b", source), ("/flow", Flow().add(uses=source))):
            mount(app, path, each)
        async with client(app) as http:
            for path in ("/a", "/b", "/flow"):
                assert 200 == (await http.post(f"{path}/where", json=HI)).status_code
            assert ["loaded"] == story.events
        assert ["loaded", "closed"] == story.events


async def test_async_with_takes_over_what_a_request_had_loaded() -> None:
    story = Story()
    source = Deployment(uses=story.model)
    asgi = JinaASGI(source)
    assert 200 == await asked(asgi, "/where")
    async with source:
        assert 1 == len(await source.call("/where", [Text()]))
        assert 200 == await asked(asgi, "/where")
        async with client(asgi) as http:
            assert 200 == (await http.post("/where", json=HI)).status_code
        assert ["loaded"] == story.events
        assert 200 == await asked(asgi, "/where")  # it is there as long as one of the two is
    assert ["loaded", "closed"] == story.events


async def test_of_two_lifespans_of_one_application_the_last_to_leave_ends_it() -> None:
    story = Story()
    asgi = JinaASGI(story.model, wait_ready=True)
    first, second = asgi.lifespan(), asgi.lifespan()
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert 200 == await asked(asgi, "/where")
    assert ["loaded"] == story.events
    await second.__aexit__(None, None, None)
    assert ["loaded", "closed"] == story.events
