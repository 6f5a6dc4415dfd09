"""A JinaASGI alone, and mounted into a host: prefixes, the host's middleware, lifespans, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles

from jina_asgi import Context, DefinitionError, Deployment, Executor, JinaASGI, Limits, mount, requests
from jina_asgi.testing import ASGITransport, client, events

HI = {"data": [{"text": "hi"}]}


class Text(BaseModel):
    text: str


class Echo(Executor):
    """Echoes, and knows how many of it live."""

    living = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        type(self).living += 1

    def close(self) -> None:
        type(self).living -= 1

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/who")
    async def who(self, docs: list[Text], context: Context) -> list[Text]:
        return [Text(text=str(context.identity))]

    @requests(on="/living")
    async def count(self, docs: list[Text]) -> list[Text]:
        return [Text(text=str(self.living))]

    @requests(on="/fail")
    async def fail(self, docs: list[Text]) -> list[Text]:
        raise ValueError("SECRET")

    @requests(on="/deep/er")
    async def deeper(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/two")
    async def two(self, doc: Text) -> Text:
        yield Text(text="a")
        await type(self).gate.wait()
        yield Text(text="b" * 2000)

    gate: asyncio.Event


class Shout(Executor):
    @requests(on="/shout")
    async def shout(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text.upper()) for doc in docs]


HOSTS = [Starlette, FastAPI]


@pytest.fixture(params=HOSTS, ids=lambda host: host.__name__)
def host(request: pytest.FixtureRequest) -> Any:
    return request.param()


async def text(http: httpx.AsyncClient, path: str) -> str:
    answer = await http.post(path, json=HI)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]["text"]


# Where it is mounted.


@pytest.mark.parametrize("prefix", ["/lm", "/lm/", "/v1/models/lm", "/default", "/post", "/a-b_c.d~e", "/echo"])
async def test_it_answers_under_any_prefix(host, prefix) -> None:
    mount(host, prefix, Echo)
    async with client(host) as http:
        below = prefix.rstrip("/")
        assert await text(http, f"{below}/echo") == "hi"
        assert await text(http, f"{below}/deep/er") == "hi"
        assert (await http.post("/echo" if prefix != "/echo" else "/other", json=HI)).status_code == 404
        assert (await http.post(f"{below}x/echo", json=HI)).status_code == 404
        assert (await http.get(f"{below}/-/live")).json() == {}


@pytest.mark.parametrize("path", ["/lm", "/lm/"])
async def test_the_bare_prefix_answers_as_the_root_does(host, path) -> None:
    mount(host, "/lm", Echo)
    async with client(host) as http:
        answer = await http.get(path)
        assert (answer.status_code, answer.json()) == (200, {})
        assert (await http.head(path)).status_code == 200
        assert (await http.post(path)).status_code == 405


async def test_two_mounts_of_two_kinds_do_not_meet(host) -> None:
    mount(host, "/a", Echo)
    mount(host, "/b", Shout)
    async with client(host) as http:
        assert await text(http, "/a/echo") == "hi"
        assert await text(http, "/b/shout") == "HI"
        assert (await http.post("/a/shout", json=HI)).status_code == 404


async def test_one_deployment_mounted_twice_loads_its_model_once(host) -> None:
    deployment = Deployment(Echo)
    mount(host, "/a", deployment, wait_ready=True)
    mount(host, "/b", deployment, wait_ready=True)
    async with client(host) as http:
        assert [await text(http, f"{prefix}/living") for prefix in ("/a", "/b")] == ["1", "1"]
    assert Echo.living == 0


async def test_one_class_mounted_twice_is_two_models(host) -> None:
    mount(host, "/a", Echo, wait_ready=True)
    mount(host, "/b", Echo, wait_ready=True)
    async with client(host) as http:
        assert await text(http, "/a/living") == "2"
    assert Echo.living == 0


async def test_one_application_may_be_served_again_and_again() -> None:
    app = JinaASGI(Deployment(Echo))
    for _ in range(3):
        async with client(app) as http:
            assert await text(http, "/living") == "1"


async def test_a_mount_within_a_mount(host) -> None:
    inner = Starlette()
    asgi = mount(inner, "/lm", Echo)
    outer = Starlette(routes=[Mount("/api", app=inner)], lifespan=asgi.lifespan)
    async with client(outer) as http:
        assert await text(http, "/api/lm/echo") == "hi"
        document = (await http.get("/api/lm/openapi.json")).json()
        assert document["servers"] == [{"url": "/api/lm"}]


async def test_a_root_path_that_stands_in_front_of_the_path(host) -> None:
    mount(host, "/lm", Echo)
    async with client(host, root_path="/proxy") as http:
        assert await text(http, "/lm/echo") == "hi"
        assert (await http.get("/lm/openapi.json")).json()["servers"] == [{"url": "/proxy/lm"}]


def stripped(app: Any, root_path: str) -> Any:
    """An app behind a proxy that strips its prefix, whose server was told of it."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": root_path} if scope["type"] == "http" else scope, receive, send)

    return served


async def test_a_root_path_that_a_proxy_has_stripped(host) -> None:
    mount(host, "/lm", Echo)
    async with client(stripped(host, "/proxy")) as http:
        assert await text(http, "/lm/echo") == "hi"
        assert (await http.get("/lm")).json() == {}
        assert (await http.get("/lm/openapi.json")).json()["servers"] == [{"url": "/proxy/lm"}]


@pytest.mark.parametrize("root_path", ["/proxy", "/echo", "/ec"])
async def test_a_jinaasgi_at_the_root_behind_a_proxy_of_either_kind(root_path) -> None:
    async with client(JinaASGI(Echo), root_path=root_path) as http:
        assert await text(http, "/echo") == "hi"
    if root_path != "/echo":  # there nobody can tell whether `/echo` is the prefix or the endpoint
        async with client(stripped(JinaASGI(Echo), root_path)) as http:
            assert await text(http, "/echo") == "hi"


async def test_routes_that_the_host_has_keep_precedence(host) -> None:
    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the host's")

    host.router.routes.append(Route("/lm/echo", own, methods=["POST"]))
    mount(host, "/lm", Echo)
    async with client(host) as http:
        assert (await http.post("/lm/echo", json=HI)).text == "the host's"
        assert await text(http, "/lm/deep/er") == "hi"


async def test_routes_added_later_are_reached_beside_it(host) -> None:
    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the host's")

    mount(host, "/lm", Echo)
    host.router.routes.append(Route("/lmx", own))
    async with client(host) as http:
        assert (await http.get("/lmx")).text == "the host's"


async def test_it_adds_nothing_to_the_hosts_own_openapi() -> None:
    host = FastAPI()
    mount(host, "/lm", Echo)
    assert host.openapi()["paths"] == {}


async def test_within_a_starlette_mount_without_a_lifespan_it_starts_when_it_is_asked() -> None:
    asgi = JinaASGI(Echo)
    async with client(Starlette(routes=[Mount("/lm", app=asgi)])) as http:
        assert Echo.living == 0
        assert await text(http, "/lm/echo") == "hi"
        Echo.gate = asyncio.Event()
        Echo.gate.set()
        async with http.stream("GET", "/lm/two", params={"text": ""}) as response:
            assert [event.name async for event in events(response)] == ["update", "update", "end"]
    await asyncio.to_thread(asgi.service.close)
    assert Echo.living == 0


# The host's own middleware.


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-passed"] = str(int(response.headers.get("x-passed", "0")) + 1)
        return response


async def first_arrives_before_the_second_is_made(app: Any, headers: dict[str, str]) -> httpx.Response:
    Echo.gate = asyncio.Event()
    async with client(app, headers=headers) as http:
        async with http.stream("GET", "/lm/two", params={"text": ""}) as response:
            found = events(response)
            assert (await anext(found)).data == {"text": "a"}
            Echo.gate.set()
            assert [event.name async for event in found] == ["update", "end"]
    return response


async def test_a_stream_streams_through_two_middlewares_of_functions(host) -> None:
    host.add_middleware(Passing)
    host.add_middleware(Passing)
    mount(host, "/lm", Echo)
    response = await first_arrives_before_the_second_is_made(host, {})
    assert response.headers["x-passed"] == "2"


async def test_what_a_middleware_adds_to_one_streams_headers_is_not_on_the_next(host) -> None:
    host.add_middleware(Passing)
    mount(host, "/lm", Echo)
    for _ in range(3):
        response = await first_arrives_before_the_second_is_made(host, {})
        assert response.headers["x-passed"] == "1"


async def test_a_stream_streams_through_gzip_and_answers_are_zipped(host) -> None:
    host.add_middleware(GZipMiddleware, minimum_size=10)
    mount(host, "/lm", Echo)
    response = await first_arrives_before_the_second_is_made(host, {"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers
    async with client(host, headers={"accept-encoding": "gzip"}) as http:
        async with http.stream("POST", "/lm/echo", json={"data": [{"text": "x" * 1000}]}) as answer:
            raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert b"x" * 1000 in gzip.decompress(raw)


async def test_the_hosts_cors_covers_what_is_mounted(host) -> None:
    host.add_middleware(CORSMiddleware, allow_origins=["https://good.test"], allow_methods=["POST"])
    mount(host, "/lm", Echo)
    async with client(host, headers={"origin": "https://good.test"}) as http:
        preflight = await http.options("/lm/echo", headers={"access-control-request-method": "POST"})
        assert preflight.headers["access-control-allow-origin"] == "https://good.test"
        answer = await http.post("/lm/echo", json=HI)
        assert answer.headers["access-control-allow-origin"] == "https://good.test"


async def test_the_hosts_user_is_the_identity(host) -> None:
    class ByName:
        async def authenticate(self, conn: Any) -> Any:
            from starlette.authentication import AuthCredentials, SimpleUser

            return AuthCredentials(), SimpleUser(conn.headers["x-name"])

    class Named(Executor):
        @requests(on="/who")
        async def who(self, docs: list[Text], context: Context) -> list[Text]:
            return [Text(text=context.identity.display_name)]

    host.add_middleware(AuthenticationMiddleware, backend=ByName())
    mount(host, "/lm", Named)
    async with client(host, headers={"x-name": "ann"}) as http:
        assert await text(http, "/lm/who") == "ann"


async def test_a_hosts_middleware_that_reads_the_body_leaves_it_readable(host) -> None:
    class Reads(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            assert (await request.json()) == HI
            return await call_next(request)

    host.add_middleware(Reads)
    mount(host, "/lm", Echo)
    async with client(host) as http:
        assert await text(http, "/lm/echo") == "hi"


async def test_the_hosts_exception_handlers_see_nothing_of_ours_and_their_own_go_on_working(host) -> None:
    async def teapot(request: Request) -> None:
        raise KeyError("host")

    async def handler(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(type(error).__name__, 418)

    for error in (KeyError, ValueError, Exception):
        host.add_exception_handler(error, handler)
    host.router.routes.append(Route("/tea", teapot))
    mount(host, "/lm", Echo)
    async with client(host) as http:
        assert (await http.get("/tea")).status_code == 418
        answer = await http.post("/lm/fail", json=HI)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "ExecutorError")


# CORS of our own.


async def test_cors_is_off_unless_asked_for() -> None:
    async with client(JinaASGI(Echo), headers={"origin": "https://any.test"}) as http:
        assert "access-control-allow-origin" not in (await http.post("/echo", json=HI)).headers
        assert (await http.options("/echo", headers={"access-control-request-method": "POST"})).status_code == 405


@pytest.mark.parametrize(
    ("cors", "origin", "allowed"),
    [
        (True, "https://any.test", "*"),
        (["https://good.test"], "https://good.test", "https://good.test"),
        (["https://good.test"], "https://evil-good.test", None),
        (["https://good.test"], "https://good.test.evil", None),
        (["https://good.test"], "null", None),
    ],
)
async def test_cors_allows_the_origins_that_are_named(cors, origin, allowed) -> None:
    async with client(JinaASGI(Echo, cors=cors), headers={"origin": origin}) as http:
        answer = await http.post("/echo", json=HI)
        assert answer.headers.get("access-control-allow-origin") == allowed
        preflight = await http.options("/echo", headers={"access-control-request-method": "POST"})
        assert preflight.headers.get("access-control-allow-origin") == allowed


# What is refused, where it is written.


@pytest.mark.parametrize(
    "path", ["", "/", "//", "lm", " /lm", "/l m", "/l?m", "/l#m", "/{lm}", "/a//b", "/../lm", "/lm\n", None, 5]
)
def test_a_path_that_is_no_prefix_is_refused(path) -> None:
    with pytest.raises(DefinitionError, match="expected a prefix such as '/lm'"):
        mount(Starlette(), path, Echo)


@pytest.mark.parametrize("app", [None, object(), JinaASGI(Shout), Router(), PlainTextResponse("x")])
def test_an_app_without_a_router_is_refused(app) -> None:
    with pytest.raises(DefinitionError, match="expected a Starlette or FastAPI app"):
        mount(app, "/lm", Echo)


@pytest.mark.parametrize("earlier", ["/lm", "/", "/a", "/a/b"])
def test_a_prefix_that_an_earlier_mount_takes_is_refused(earlier) -> None:
    host = Starlette(routes=[Mount(earlier, app=StaticFiles(directory="."))])
    with pytest.raises(DefinitionError, match="already answers every path below it"):
        mount(host, "/lm" if earlier in ("/lm", "/") else "/a/b/lm", Echo)


def test_a_prefix_beside_or_above_an_earlier_mount_is_fine() -> None:
    host = Starlette(
        routes=[Mount("/l", app=StaticFiles(directory=".")), Mount("/lm/b", app=StaticFiles(directory="."))]
    )
    mount(host, "/lm", Echo)


@pytest.mark.parametrize("source", [None, Shout(), BaseModel, 5, object])
def test_a_source_that_is_none_is_refused(source) -> None:
    with pytest.raises(DefinitionError, match="expected a Deployment, a Flow, an Executor class or a path"):
        JinaASGI(source)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"auht": None}, "JinaASGI has no option 'auht'; did you mean 'auth'?"),
        ({"wait": True}, "no option 'wait'"),
        ({"cors": "https://good.test"}, "option 'cors'"),
        ({"limits": 5}, "option 'limits'"),
        ({"auth": 5}, "option 'auth'"),
        ({"startup_wait": -1}, "option 'startup_wait'"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_refused_and_the_nearest_named(option, message) -> None:
    with pytest.raises(DefinitionError) as raised:
        JinaASGI(Echo, **option)
    assert message in str(raised.value)


@pytest.mark.parametrize("limit", [{"body": 0}, {"docs": -1}, {"depth": 1.5}, {"depth": True}, {"stream_idle": "5"}])
def test_a_limit_that_is_no_number_above_zero_is_refused(limit) -> None:
    with pytest.raises(DefinitionError, match="above zero"):
        Limits(**limit)


async def test_limits_may_be_left_out_by_none() -> None:
    assert JinaASGI(Echo, limits=None).options.limits == Limits()


# ASGI itself.


async def test_a_scope_of_another_type_is_an_error_and_no_silence() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError, match="'webtransport'"):
        await JinaASGI(Echo)({"type": "webtransport"}, never, never)


# Lifespans.


async def test_the_hosts_lifespan_goes_around_ours_and_its_state_is_kept(host) -> None:
    happened: list[str] = []

    class Noted(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            happened.append("loaded")

        def close(self) -> None:
            happened.append("closed")

        @requests(on="/x")
        async def x(self, docs: list[Text]) -> list[Text]:
            return docs

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        happened.append("host up")
        yield {"db": "open"}
        happened.append("host down")

    async def state(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.db)

    app = type(host)(lifespan=lifespan)
    app.router.routes.append(Route("/state", state))
    mount(app, "/lm", Noted, wait_ready=True)
    async with client(app) as http:
        assert (await http.get("/state")).text == "open"
    assert happened == ["host up", "loaded", "closed", "host down"]


async def test_a_host_that_fails_to_start_loads_nothing(host) -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    app = type(host)(lifespan=lifespan)
    mount(app, "/lm", Echo)
    with pytest.raises(RuntimeError, match="no database"):
        async with client(app):
            pass
    assert Echo.living == 0


class Broken(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        raise OSError("no weights at /secret/path")

    @requests(on="/x")
    async def x(self, docs: list[Text]) -> list[Text]:
        return docs


async def test_an_executor_that_fails_to_load_leaves_the_host_up_and_says_so(host, caplog) -> None:
    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("up")

    host.router.routes.append(Route("/own", own))
    mount(host, "/lm", Broken)
    async with client(host) as http:
        assert (await http.get("/own")).text == "up"
        answer = await http.post("/lm/x", json=HI)
        ready = await http.get("/lm/-/ready")
        live = await http.get("/lm/-/live")
    assert (live.status_code, ready.status_code, answer.status_code) == (200, 503, 503)
    assert answer.json()["error"]["type"] == ready.json()["error"]["type"] == "NotReady"
    assert "/secret" not in ready.text + answer.text
    assert "no weights" in caplog.text


async def test_with_wait_ready_an_executor_that_fails_to_load_fails_the_startup(host, caplog) -> None:
    mount(host, "/lm", Broken, wait_ready=True)
    with pytest.raises(RuntimeError, match="no weights"):
        async with client(host):
            pass


async def test_startup_does_not_wait_for_loading_and_calls_do() -> None:
    loop, gate = asyncio.get_running_loop(), asyncio.Event()

    class Slow(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()

        @requests(on="/x")
        async def x(self, docs: list[Text]) -> list[Text]:
            return docs

    async with client(JinaASGI(Slow)) as http:
        assert (await http.get("/-/live")).status_code == 200
        ready = await http.get("/-/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, "still loading")
        assert ready.headers["retry-after"] == "1"
        assert (await http.get("/dry_run")).json()["code"] == 1
        call = asyncio.create_task(text(http, "/x"))
        await asyncio.wait([call], timeout=0.01)
        assert not call.done()
        gate.set()
        assert await call == "hi"
        assert (await http.get("/-/ready")).json() == {"ready": True}
        assert (await http.get("/dry_run")).json()["code"] == 0


async def test_a_call_waits_for_loading_no_longer_than_startup_wait() -> None:
    loop, gate = asyncio.get_running_loop(), asyncio.Event()

    class Slow(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()

        @requests(on="/x")
        async def x(self, docs: list[Text]) -> list[Text]:
            return docs

    async with client(JinaASGI(Slow, startup_wait=0)) as http:
        answer = await http.post("/x", json=HI)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        gate.set()


async def test_lifespan_composes_into_a_lifespan_written_by_hand() -> None:
    asgi = JinaASGI(Echo)
    async with asgi.lifespan():
        async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
            assert await text(http, "/echo") == "hi"
    assert Echo.living == 0


# Figures.


async def test_status_shows_versions_state_and_figures(host) -> None:
    mount(host, "/lm", Deployment(Echo, name="echo"), wait_ready=True)
    async with client(host) as http:
        await http.post("/lm/echo", json=HI)
        await http.post("/lm/fail", json=HI)
        figures = (await http.get("/lm/-/status")).json()
    assert figures["versions"].keys() >= {"jina-asgi", "docarray", "python"}
    deployment = figures["deployments"]["echo"]
    assert deployment["state"] == "ready"
    assert deployment["endpoints"]["/two"] == "stream"
    assert (deployment["calls"], deployment["in_flight"]) == (2, 0)
    assert deployment["failures"] == {"ExecutorError": 1}


def test_middleware_given_to_the_constructor_is_kept() -> None:
    host = Starlette(middleware=[Middleware(Passing)])
    mount(host, "/lm", Echo)
    (entry,) = host.user_middleware
    assert entry.cls is Passing  # type: ignore[comparison-overlap]
