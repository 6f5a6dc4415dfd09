"""The testing kit: a client that streams for real, and tells the truth about what an app did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from jina_asgi.testing import ASGITransport, Event, SocketClosed, SocketRefused, client, events, websocket

pytest_plugins = ["jina_asgi.testing.fixtures"]


def served(endpoint: Any, path: str = "/", **options: Any) -> Starlette:
    return Starlette(routes=[Route(path, endpoint, methods=["GET", "POST", "HEAD"])], **options)


# Streaming.


async def test_what_an_app_sends_arrives_while_it_still_runs() -> None:
    second = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await second.wait()
        yield b"second"

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks())

    async with client(served(endpoint)) as http:
        async with http.stream("GET", "/") as response:
            arriving = response.aiter_raw()
            assert await anext(arriving) == b"first"
            second.set()
            assert [chunk async for chunk in arriving] == [b"second"]


async def test_an_app_is_held_back_by_a_slow_reader() -> None:
    made = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x"

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks())

    async with client(served(endpoint)) as http:
        async with http.stream("GET", "/") as response:
            arriving = response.aiter_raw()
            for _ in range(3):
                await anext(arriving)
                for _turn in range(100):  # the app's, if it takes them
                    await asyncio.sleep(0)
            assert made < 50


async def test_closing_early_shows_the_app_that_its_client_left_and_waits_for_its_end() -> None:
    happened: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        happened.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"to nobody", "more_body": True})
        happened.append("ended")

    async with client(app) as http:
        async with http.stream("GET", "/") as response:
            assert await anext(response.aiter_raw()) == b"x"
            assert happened == []
        assert happened == ["http.disconnect", "ended"]


async def test_after_the_whole_response_an_app_sees_a_disconnect_as_on_a_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with client(app) as http, asyncio.timeout(10):
        assert (await http.post("/", content=b"body")).text == "x"


async def test_a_caller_who_is_cancelled_leaves_no_app_running() -> None:
    ended = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            work = asyncio.ensure_future(endpoint(Request(scope)))
            await receive()
            while (await receive())["type"] != "http.disconnect":
                pass
            work.cancel()
            await asyncio.wait([work])

    async with client(app) as http:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await http.get("/")
        assert ended.is_set()


# Errors.


async def test_what_an_app_raises_before_its_response_is_raised_to_the_test() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("mine")

    async with client(app) as http:
        with pytest.raises(KeyError, match="mine"):
            await http.get("/")


async def test_what_an_app_raises_within_its_response_is_raised_where_it_is_read() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        raise KeyError("mine")

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks())

    async with client(served(endpoint)) as http:
        found: list[bytes] = []

        async def read() -> None:
            async with http.stream("GET", "/") as response:
                async for chunk in response.aiter_raw():
                    found.append(chunk)  # kept when it raises

        with pytest.raises(KeyError, match="mine"):
            await read()
        assert found == [b"first"]


async def test_an_app_that_answers_nothing_is_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    async with client(app) as http:
        with pytest.raises(RuntimeError, match="without a response"):
            await http.get("/")


# What the app is told.


async def test_the_scope_is_as_a_server_makes_it() -> None:
    async def endpoint(request: Request) -> Response:
        scope = request.scope
        return JSONResponse(
            {
                **{key: scope[key] for key in ("method", "scheme", "path", "root_path", "http_version")},
                "raw_path": scope["raw_path"].decode(),
                "query": scope["query_string"].decode(),
                "server": list(scope["server"]),
                "header": request.headers["x-one"],
            }
        )

    async with client(served(endpoint, "/{name:path}"), base_url="https://host.test", root_path="/api") as http:
        answer = await http.post("/a%20b/%C3%BC", params={"q": "1 2"}, headers={"X-One": "1"})
    assert answer.json() == {
        "method": "POST",
        "scheme": "https",
        "path": "/api/a b/ü",
        "root_path": "/api",
        "http_version": "1.1",
        "raw_path": "/api/a%20b/%C3%BC",
        "query": "q=1+2",
        "server": ["host.test", 443],
        "header": "1",
    }


async def test_a_body_may_be_sent_in_pieces() -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(b"|".join([chunk async for chunk in request.stream()]))

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            yield piece

    async with client(served(endpoint)) as http:
        assert (await http.post("/", content=pieces())).text == "a|b|c|"
        assert (await http.post("/", content=b"abc")).text == "abc|"


async def test_cookies_and_redirects_work_as_over_a_socket() -> None:
    async def login(request: Request) -> Response:
        response = RedirectResponse("/me", 303)
        response.set_cookie("user", "ann")
        return response

    async def me(request: Request) -> Response:
        return PlainTextResponse(request.cookies["user"])

    app = Starlette(routes=[Route("/login", login, methods=["POST"]), Route("/me", me)])
    async with client(app, follow_redirects=True) as http:
        assert (await http.post("/login")).text == "ann"
        assert (await http.get("/me")).text == "ann"


async def test_options_of_httpx_pass_through() -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.headers["authorization"])

    async with client(served(endpoint), headers={"authorization": "Bearer ann"}) as http:
        assert (await http.get("/")).text == "Bearer ann"


# Lifespans.


async def test_the_lifespan_runs_around_the_client_and_its_state_reaches_requests() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        happened.append("up")
        yield {"db": "open"}
        happened.append("down")

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.state.db)

    async with client(served(endpoint, lifespan=lifespan)) as http:
        assert (await http.get("/")).text == "open"
        assert happened == ["up"]
    assert happened == ["up", "down"]


async def test_a_test_that_fails_still_shuts_its_app_down() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        happened.append("down")

    with pytest.raises(AssertionError, match="the test's own"):
        async with client(Starlette(lifespan=lifespan)):
            raise AssertionError("the test's own")
    assert happened == ["down"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_failing_startup_or_shutdown_is_an_error_with_the_apps_message(phase) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if phase == "startup":
            raise OSError("no database")
        yield
        raise OSError("no database")

    with pytest.raises(RuntimeError, match=rf"(?s){phase} failed: .*no database") as raised:
        async with client(Starlette(lifespan=lifespan)):
            pass
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("refuses", ["raises", "returns"])
async def test_an_app_that_knows_no_lifespan_is_served_without_as_servers_do(refuses) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("up")(scope, receive, send)
        elif refuses == "raises":
            raise ValueError("http alone")

    async with client(app) as http:
        assert (await http.get("/")).text == "up"


async def test_a_transport_alone_runs_no_lifespan() -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("up")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise AssertionError
        yield

    transport = ASGITransport(served(endpoint, lifespan=lifespan), client=("10.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/")).text == "up"


async def test_the_fixture_makes_clients_that_end_with_the_test(asgi_client) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("up")

    first, second = await asgi_client(served(endpoint)), await asgi_client(served(endpoint), base_url="http://b")
    assert [(await http.get("/")).text for http in (first, second)] == ["up", "up"]


# Events.


class Chunks(httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


@pytest.mark.parametrize(
    ("chunks", "found"),
    [
        ([b'event: update\r\ndata: {"a":1}\r\n\r\n'], [Event("update", {"a": 1})]),
        ([b"data: 1\n\ndata: 2\n\n"], [Event("message", 1), Event("message", 2)]),
        ([b"data: 1\r\rdata: 2\r\r"], [Event("message", 1), Event("message", 2)]),
        ([b"event: end\r", b"\n\r", b"\n"], [Event("end", None)]),
        ([b"data: [1,\r\ndata: 2]\r\n\r\n"], [Event("message", [1, 2])]),
        ([b": ping\r\n\r\n", b"data:1\r\n\r\n"], [Event("message", 1)]),
        ([b'data: "\xe2\x80\xa8\xc2\x85"\r\n\r\n'], [Event("message", "\u2028\x85")]),
        ([b'data: "\xe2', b'\x80\xa8"\r\n\r\n'], [Event("message", "\u2028")]),
        ([b"event: update\r\ndata: 1\r\n"], []),
        ([b"id: 5\r\nretry: 1\r\ndata: 1\r\n\r\n"], [Event("message", 1)]),
        ([], []),
    ],
)
async def test_events_are_read_as_browsers_read_them(chunks, found) -> None:
    assert [event async for event in events(httpx.Response(200, stream=Chunks(*chunks)))] == found


async def test_events_are_read_wherever_they_are_cut() -> None:
    raw = b"event: update\r\ndata: [1,\r\ndata: 2]\r\n\r\n: ping\r\rdata: 3\n\nevent: end\n\r\n"
    expected = [Event("update", [1, 2]), Event("message", 3), Event("end", None)]
    for size in range(1, len(raw)):
        chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
        assert expected == [event async for event in events(httpx.Response(200, stream=Chunks(*chunks)))]


async def test_a_large_event_in_many_chunks_is_read() -> None:
    value = {"text": "é" * 9_000_000, "numbers": [1.5] * 100_000}
    raw = b"data: " + orjson.dumps(value) + b"\n\n"
    chunks = [raw[at : at + 65_536] for at in range(0, len(raw), 65_536)]
    assert [Event("message", value)] == [event async for event in events(httpx.Response(200, stream=Chunks(*chunks)))]


@pytest.mark.parametrize("size", [1, 2_000_000])
async def test_data_that_is_no_json_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=r"JSON|unexpected"):
        [event async for event in events(httpx.Response(200, stream=Chunks(b"data: %s\r\n\r\n" % (b"{" * size))))]


async def test_a_websocket_on_an_app_speaks_json_with_the_lifespan_run() -> None:
    ran: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        ran.append("begun")
        yield {"db": "state"}
        ran.append("ended")

    async def answer(socket: WebSocket) -> None:
        await socket.accept(subprotocol="json")
        await socket.send_json([await socket.receive_json(), socket.state.db, socket.headers["x-a"], socket.url.path])
        await socket.send_bytes(await socket.receive_bytes())
        await socket.close(4000, "enough")

    app = Starlette(routes=[WebSocketRoute("/ws", answer)], lifespan=lifespan)
    async with websocket(app, "/ws", headers={"X-A": "1"}, subprotocols=["json"], root_path="/p") as socket:
        assert "json" == socket.subprotocol
        await socket.send({"a": 1})
        assert [{"a": 1}, "state", "1", "/p/ws"] == await socket.receive()
        socket.send_raw(b"\x00")
        assert b"\x00" == await socket.receive_raw()
        for _ in range(2):
            with pytest.raises(SocketClosed, match="enough") as closed:
                await socket.receive()
            assert 4000 == closed.value.code
        assert ["begun"] == ran
    assert ["begun", "ended"] == ran


async def test_a_websocket_that_the_app_refuses_or_fails_says_so() -> None:
    async def refuse(socket: WebSocket) -> None:
        await socket.close(4001)

    async def fail(socket: WebSocket) -> None:
        await socket.accept()
        raise ValueError("broken")

    app = Starlette(routes=[WebSocketRoute("/refuse", refuse), WebSocketRoute("/fail", fail)])
    with pytest.raises(SocketRefused) as refused:
        async with websocket(app, "/refuse"):
            raise AssertionError("it was opened")
    assert (403, 4001) == (refused.value.status, refused.value.code)
    with pytest.raises(ValueError, match="broken"):
        async with websocket(app, "/fail") as socket:
            await socket.receive()
