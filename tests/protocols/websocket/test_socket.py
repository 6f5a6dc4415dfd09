"""The JSON WebSocket: many calls on one socket, each with one end; a mistake costs nobody else's call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from fastapi import Depends, FastAPI, WebSocketException
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from jina_asgi import Deployment, JinaASGI, Limits, mount
from jina_asgi.fastapi import include
from jina_asgi.protocols.frames._heads import describe, endpoint_of
from jina_asgi.protocols.websocket.asgi_transport import connected
from jina_asgi.protocols.websocket.socket import is_gone
from jina_asgi.testing import InProcessSocket, SocketClosed, SocketRefused, websocket
from tests.doubles.websockets import GONE, Spoken, call, outcome, texts, until


def spoken(**options: Any) -> JinaASGI:
    return JinaASGI(Spoken, wait_ready=True, **options)


async def test_an_answer_is_http_s_own_with_the_call_s_id() -> None:
    async with websocket(spoken()) as socket:
        await socket.send({"id": "a", "endpoint": "/echo", "data": [{"text": "x"}], "header": {"request_id": "r"}})
        answered, ended = await outcome(socket, "a")
    assert [{"text": "x", "n": 3}] == answered.pop("data")
    assert {"id": "a", "event": "data", "parameters": {}} == {k: v for k, v in answered.items() if k != "header"}
    assert "r" == answered["header"]["request_id"]
    assert {"id": "a", "event": "end"} == ended


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
async def test_the_endpoints_are_found_over_the_socket_by_those_who_may_know_them(*, packed: bool) -> None:
    async def auth(headers: Mapping[str, str], name: str) -> str | None:
        return None if name == "/-/endpoints" and "x-let-me" not in headers else "someone"

    async def described(headers: Mapping[str, str]) -> Any:
        asked = {"id": 1, "endpoint": "/-/endpoints"}
        async with websocket(app, headers=headers) as socket:
            if not packed:
                await socket.send(asked)
                return await socket.receive()
            socket.send_raw(msgspec.msgpack.encode(asked))
            answer = await socket.receive_raw()
            assert isinstance(answer, bytes)
            return msgspec.msgpack.decode(answer)

    app = spoken(auth=auth)
    found = await described({"x-let-me": "in"})
    assert found["event"] == "data"
    assert {endpoint.name: endpoint for endpoint in map(endpoint_of, found["data"])} == {
        name: endpoint_of(describe(endpoint)) for name, endpoint in app.source.endpoints.items()
    }
    refused = await described({})
    assert (refused["event"], refused["status"]) == ("error", 401)


@pytest.mark.parametrize("endpoint", ["/count", "count", "/sync"])
async def test_a_stream_gives_a_document_an_event(endpoint: str) -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call(7, endpoint, "t"))
        assert ["t0", "t1", "t2"] == texts(await outcome(socket, 7), 7)


async def test_a_stream_of_nothing_ends() -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call(1, "/count", n=0))
        assert [{"id": 1, "event": "end"}] == await outcome(socket, 1)


async def test_many_calls_share_a_socket_and_their_ids_keep_them_apart() -> None:
    async with websocket(spoken()) as socket:
        for number in range(60):
            await socket.send(call(number, ("/count", "/echo", "/sync")[number % 3], f"{number}:"))
        ends, events = 0, []
        while ends < 60:
            events.append(await socket.receive())
            ends += events[-1]["event"] == "end"
        for number in range(60):
            if number % 3 == 1:
                [answered] = [e for e in events if e["id"] == number and e["event"] == "data"]
                assert f"{number}:" == answered["data"][0]["text"]
            else:
                assert [f"{number}:{index}" for index in range(3)] == texts(events, number)


async def test_the_ids_1_and_its_text_are_two() -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call(1, "/idle", n=1))
        await socket.receive()
        await socket.send(call("1", "/count", "t", n=1))
        assert ["t0"] == texts(await outcome(socket, "1"), "1")


async def test_an_id_may_be_used_again_once_its_call_has_ended() -> None:
    async with websocket(spoken()) as socket:
        for _ in range(2):
            await socket.send(call(1, "/count", "t"))
            assert ["t0", "t1", "t2"] == texts(await outcome(socket, 1), 1)


async def test_parameters_headers_identity_and_deadline_reach_the_executor() -> None:
    async def auth(headers: Mapping[str, str], endpoint: str) -> str:
        return f"who asks {endpoint}"

    async with websocket(spoken(auth=auth), headers={"x-who": "me"}) as socket:
        await socket.send(call(1, "/told", parameters={"a": 1}, header={"request_id": "r1"}, timeout=60))
        await socket.send(call(2, "/told"))
        events = await until(socket, lambda event: event == {"id": 2, "event": "end"})
    values = {event["id"]: event["data"][0]["value"] for event in events if event["event"] == "data"}
    assert [{"a": 1}, "r1", "me", "who asks /told", True] == values[1]
    assert [{}, "me", "who asks /told", False] == [values[2][0], *values[2][2:]]
    assert 32 == len(values[2][1])


@pytest.mark.parametrize("head", [{}, {"id": "a", "endpoint": "/echo"}], ids=["last", "first"])
async def test_the_refusal_of_far_too_many_values_has_the_call_s_id_wherever_that_is(head: dict[str, str]) -> None:
    message = {**head, "data": {"text": "x", "value": [[]] * 4_500_000}, "endpoint": "/echo", "id": "a"}
    async with websocket(spoken(limits=Limits(values=1000))) as socket:
        await socket.send(message)
        assert ("a", 413) == ((refused := await socket.receive())["id"], refused["status"])
        socket.send_raw(msgspec.msgpack.encode({**message, "data": [[]] * 9_000_000}))
        refused = await packed(socket)
        assert ("a", 413) == (refused["id"], refused["status"])


# Stopping.


@pytest.mark.parametrize("endpoint", ["/idle", "/greedy", "/wait"])
async def test_cancel_ends_that_call_and_its_end_says_that_its_work_has_stopped(endpoint: str) -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call("kept", "/idle", "kept", n=1))
        await socket.send(call("a", endpoint, "a"))
        await socket.send({"id": "a", "event": "cancel"})
        assert {"id": "a", "event": "end", "cancelled": True} == (await outcome(socket, "a"))[-1]
        await socket.send(call("b", "/echo"))
        await outcome(socket, "b")
        await socket.send(call("kept", "/echo"))  # it is still open
        assert (await socket.receive())["id"] is None


async def test_a_generator_is_closed_before_the_end_of_its_cancelled_call() -> None:
    source = Deployment(Spoken)
    async with websocket(JinaASGI(source, wait_ready=True)) as socket:
        await socket.send(call(1, "/idle", "mine", n=1))
        await socket.receive()
        await socket.send({"id": 1, "event": "cancel"})
        await outcome(socket, 1)
        await socket.send(call(2, "/closed", "mine"))
        assert "end" == (await outcome(socket, 2))[-1]["event"]


async def test_cancelling_what_has_ended_or_never_was_is_nothing() -> None:
    async with websocket(spoken()) as socket:
        await socket.send({"id": "never", "event": "cancel"})
        await socket.send(call(1, "/count", "t", n=1))
        assert ["t0"] == texts(await outcome(socket, 1), 1)


async def test_leaving_cancels_every_call() -> None:
    asgi = spoken()
    async with websocket(asgi) as witness:
        async with websocket(asgi) as socket:
            for number, endpoint in enumerate(("/idle", "/greedy", "/wait")):
                await socket.send(call(number, endpoint, endpoint, n=1))
            await until(socket, lambda event: event["id"] == 0)
        await witness.send(
            {"id": 1, "endpoint": "/closed", "data": [{"text": t} for t in ("/idle", "/greedy", "/wait")]}
        )
        assert "end" == (await outcome(witness, 1))[-1]["event"]


# Room for everybody.


async def test_a_reader_that_is_slow_holds_its_generators() -> None:
    source = Deployment(Spoken)
    asgi = JinaASGI(source, wait_ready=True)
    async with websocket(asgi) as socket:
        await socket.send(call(1, "/greedy", "t"))
        await socket.receive()
        async with websocket(asgi) as other:  # another client is served meanwhile
            for number in range(50):
                await other.send(call(number, "/echo"))
                await outcome(other, number)
        came = 1
        await socket.send({"id": 1, "event": "cancel"})
        while (await socket.receive())["event"] == "data":
            came += 1
        assert came < 40, "those that the transport keeps, and one"


async def test_streams_that_never_wait_take_turns() -> None:
    async with websocket(spoken()) as socket:
        for name in ("a", "b"):
            await socket.send(call(name, "/greedy"))
        seen = set()
        for _ in range(200):
            seen.add((await socket.receive())["id"])
        assert {"a", "b"} == seen
        await socket.send(call("c", "/count", "t", n=1))
        assert ["t0"] == texts(await outcome(socket, "c"), "c")


async def test_calls_beyond_the_limit_of_a_socket_are_asked_to_come_back() -> None:
    async with websocket(spoken(limits=Limits(socket_calls=2))) as socket:
        for number in (1, 2):
            await socket.send(call(number, "/idle", n=1))
            await until(socket, lambda event, n=number: event["id"] == n)
        await socket.send(call(3, "/echo"))
        refused = await socket.receive()
        assert (3, "error", 503, "Overloaded", True) == (
            refused["id"],
            refused["event"],
            refused["status"],
            refused["error"]["type"],
            refused["error"]["retriable"],
        )
        assert refused["retry_after"] > 0
        await socket.send({"id": 1, "event": "cancel"})
        await outcome(socket, 1)
        await socket.send(call(3, "/count", n=0))
        assert {"id": 3, "event": "end"} == await socket.receive()


async def test_a_full_queue_refuses_a_call_and_keeps_the_others() -> None:
    asgi = JinaASGI(Deployment(Spoken, max_queue=1), wait_ready=True)
    async with websocket(asgi) as socket:
        await socket.send(call(1, "/idle", n=1))
        await socket.receive()
        await socket.send(call(2, "/echo"))
        [refused] = await outcome(socket, 2)
        assert (503, "Overloaded") == (refused["status"], refused["error"]["type"])
        await socket.send({"id": 1, "event": "cancel"})
        assert (await outcome(socket, 1))[-1]["cancelled"]


async def test_a_socket_on_which_nothing_is_said_gets_a_ping_and_lives_on() -> None:
    async with websocket(spoken(limits=Limits(stream_idle=0.01))) as socket:
        assert [{"id": None, "event": "ping"}] * 2 == [await socket.receive() for _ in range(2)]
        await socket.send(call(1, "/count", "t", n=1))
        assert ["t0"] == texts(await outcome(socket, 1), 1)


# Mistakes.


@pytest.mark.parametrize(
    ("message", "identity", "status", "said"),
    [
        ("", None, 400, "expected a JSON object"),
        ("{", None, 400, "expected a JSON object"),
        ("[]", None, 400, "expected a JSON object"),
        ('{"endpoint": "/echo", "data": []}', None, 400, "id"),
        ('{"id": null, "endpoint": "/echo"}', None, 400, "id"),
        ('{"id": true, "endpoint": "/echo"}', None, 400, "id"),
        ('{"id": "%s", "endpoint": "/echo"}' % ("x" * 129), None, 400, "length <= 128"),
        ('{"id": 1, "event": "stop"}', 1, 400, "the event 'stop'"),
        ('{"id": 1, "endpoint": 5}', 1, 400, "endpoint"),
        ('{"id": 1, "endpoint": "/echo", "data": [], "timeout": "soon"}', 1, 400, "timeout"),
        ('{"id": 1, "endpoint": "/echo", "data": [], "timeout": -1}', 1, 400, "timeout"),
        ('{"id": 1, "endpoint": "/echo", "data": [], "timeout": 1e999}', 1, 400, "range"),
        ('{"id": 1, "endpoint": "/echo", "data": [], "timeout": 0}', 1, 504, "deadline"),
        ('{"id": 1, "endpoint": "/nowhere", "data": []}', 1, 404, "Not Found"),
        ('{"id": 1, "endpoint": "/../x", "data": []}', 1, 404, "Not Found"),
        ('{"id": 1, "endpoint": "/post", "data": []}', 1, 404, "Not Found"),
        ('{"id": 1, "data": []}', 1, 404, "Not Found"),
        ('{"id": 1, "endpoint": "/any", "data": [{"value": 1e999}]}', 1, 400, "not JSON"),
        ('{"id": 1, "endpoint": "/any", "data": {"value": ' + "[" * 70 + "]" * 70 + "}}", 1, 413, "deeper than 64"),
        ('{"id": 1, "data": ' + "[" * 100_000, None, 413, "too deep"),
        ('{"id": 1, "endpoint": "/echo", "data": [{}' + ", {}" * 10 + "]}", 1, 413, "at most 10 docs"),
        ('{"id": 1, "endpoint": "/echo", "data": [], "header": {"request_id": "a b"}}', 1, 422, "pattern"),
        ("\ud800", None, 400, "expected a JSON object"),
        ('{"id": 1, "endpoint": "/echo\\u0000", "data": []}', 1, 404, "Not Found"),
    ],
)
async def test_a_message_that_makes_no_sense_is_one_error_and_no_more(
    message: str, identity: Any, status: int, said: str
) -> None:
    async with websocket(spoken(limits=Limits(docs=10))) as socket:
        await socket.send(call("other", "/idle", n=1))
        await socket.receive()
        socket.send_raw(message)
        error = await socket.receive()
        assert (identity, "error", status) == (error["id"], error["event"], error["status"])
        assert said in str(error["detail"])
        assert {"type", "id", "retriable"} == error["error"].keys()
        assert "Traceback" not in str(error)
        await socket.send({"id": "other", "event": "cancel"})
        assert [{"id": "other", "event": "end", "cancelled": True}] == await outcome(socket, "other")


async def test_docs_that_do_not_fit_are_named_as_over_http() -> None:
    async with websocket(spoken()) as socket:
        await socket.send({"id": 1, "endpoint": "/echo", "data": [{"text": "a"}, {"text": 5}]})
        [error] = await outcome(socket, 1)
    assert (422, "InvalidDocs") == (error["status"], error["error"]["type"])
    assert ["body", "data", "list[Text]", 1, "text"] == error["detail"][0]["loc"]


async def test_an_id_that_is_taken_is_refused_without_ending_the_call_that_has_it() -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call("a", "/idle", n=1))
        await socket.receive()
        for message in (call("a", "/echo"), {"id": "a", "event": "what"}):
            await socket.send(message)
            error = await socket.receive()
            assert (None, "InvalidRequest") == (error["id"], error["error"]["type"])
        await socket.send({"id": "a", "event": "cancel"})
        assert (await outcome(socket, "a"))[-1]["cancelled"]


@pytest.mark.parametrize(
    ("message", "code", "reason"), [(b"\x00\x01", 1003, "binary"), ("x" * 101, 1009, "at most 100 bytes")]
)
async def test_what_is_no_json_text_or_too_large_closes_the_socket(message: Any, code: int, reason: str) -> None:
    asgi = spoken(limits=Limits(body=100))
    async with websocket(asgi) as witness, websocket(asgi) as socket:
        await socket.send(call(1, "/idle", "mine", n=1))
        await socket.receive()
        socket.send_raw(message)
        with pytest.raises(SocketClosed, match=reason) as closed:
            await socket.receive()
        assert code == closed.value.code
        await witness.send(call(1, "/closed", "mine"))
        assert "end" == (await outcome(witness, 1))[-1]["event"]


@pytest.mark.parametrize(("text", "status", "detail"), [("input", 422, "ask for less"), ("", 500, "log has the cause")])
async def test_an_error_after_some_documents_is_the_last_event_and_no_end(text: str, status: int, detail: str) -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call(1, "/fail", text, n=2))
        *docs, error = await outcome(socket, 1)
        assert ["0", "1"] == [event["data"]["text"] for event in docs]
        assert ("error", status) == (error["event"], error["status"])
        assert detail in error["detail"]
        assert "SECRET" not in str(error)
        await socket.send(call(1, "/count", n=0))
        assert {"id": 1, "event": "end"} == await socket.receive()


async def test_a_deadline_ends_a_call_and_a_stream() -> None:
    async with websocket(spoken()) as socket:
        for number, endpoint in enumerate(("/idle", "/wait")):
            await socket.send(call(number, endpoint, endpoint, n=1, timeout=0.05))
            error = (await outcome(socket, number))[-1]
            assert (504, "DeadlineExceeded") == (error["status"], error["error"]["type"])
        await socket.send({"id": 9, "endpoint": "/closed", "data": [{"text": "/idle"}, {"text": "/wait"}]})
        assert "end" == (await outcome(socket, 9))[-1]["event"]


@pytest.mark.parametrize(
    "text",
    ["\n", "\r\n", "\n\ndata: x", "event: admin", "\u2028\u2029", "\x00", '"}{"id":2,"event":"end"}', "é" * 999_999],
)
async def test_no_text_breaks_out_of_its_event(text: str) -> None:
    async with websocket(spoken()) as socket:
        await socket.send(call(1, "/count", text, n=2))
        assert [f"{text}0", f"{text}1"] == texts(await outcome(socket, 1), 1)


# Who may connect.


async def test_auth_is_asked_at_the_handshake_and_for_each_call() -> None:
    asked: list[str] = []

    async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
        asked.append(endpoint)
        if endpoint == "/count":
            raise HTTPException(403, "not for you")
        return "somebody" if headers.get("authorization") == "Bearer good" and endpoint != "/echo" else None

    with pytest.raises(SocketRefused) as refused:
        async with websocket(spoken(auth=auth)):
            raise AssertionError("it was opened")
    assert 401 == refused.value.status
    assert b"Unauthenticated" in refused.value.body
    async with websocket(spoken(auth=auth), headers={"Authorization": "Bearer good"}) as socket:
        statuses = {}
        for endpoint in ("/told", "/echo", "/count", "/nowhere"):
            await socket.send(call(endpoint, endpoint))
            statuses[endpoint] = (await outcome(socket, endpoint))[-1].get("status")
    assert {"/told": None, "/echo": 401, "/count": 403, "/nowhere": 404} == statuses
    assert ["/-/ws", "/-/ws", "/told", "/echo", "/count", "/nowhere"] == asked


async def test_where_a_server_sends_no_response_the_close_code_names_the_status() -> None:
    async def nobody(headers: Mapping[str, str], endpoint: str) -> None:
        return None

    with pytest.raises(SocketRefused) as refused:
        async with websocket(spoken(auth=nobody), denial=False):
            raise AssertionError("it was opened")
    assert (403, 4401) == (refused.value.status, refused.value.code)


@pytest.mark.parametrize(
    ("cors", "headers", "opens"),
    [
        (False, {"host": "good.com"}, True),
        (False, {"host": "good.com", "origin": "http://good.com"}, True),
        (False, {"host": "good.com", "origin": "https://good.com"}, True),
        (False, {"host": "GOOD.com:443", "origin": "https://good.com"}, True),
        (False, {"host": "good.com:8000", "origin": "http://good.com:8000"}, True),
        (False, {"host": "[::1]:8000", "origin": "http://[::1]:8000"}, True),
        (False, {"host": "good.com", "origin": "null"}, False),
        (False, {"host": "good.com", "origin": ""}, False),
        (False, {"host": "good.com", "origin": "http://evil.com"}, False),
        (False, {"host": "good.com", "origin": "http://evil-good.com"}, False),
        (False, {"host": "good.com", "origin": "http://good.com.evil"}, False),
        (False, {"host": "good.com", "origin": "http://good.com:8000"}, False),
        (False, {"host": "good.com:8000", "origin": "http://good.com"}, False),
        (False, {"host": "good.com", "origin": "http://good.com@evil.com"}, False),
        (False, {"host": "good.com", "origin": "http://good.com/"}, False),
        (False, {"host": "good.com", "origin": "http://[good.com"}, False),
        (False, {"host": "good.com", "origin": "file://good.com"}, False),
        (["https://page.com"], {"host": "good.com", "origin": "https://page.com"}, True),
        (["https://page.com"], {"host": "good.com", "origin": "http://page.com"}, False),
        (["https://page.com"], {"host": "good.com", "origin": "http://good.com"}, True),
        (["*"], {"host": "good.com", "origin": "http://evil.com"}, True),
        (True, {"host": "good.com", "origin": "http://evil.com"}, True),
    ],
)
async def test_pages_of_other_origins_are_refused_before_the_socket_opens(
    cors: Any, headers: dict[str, str], opens: bool
) -> None:
    async def open_one() -> int:
        try:
            async with websocket(spoken(cors=cors), headers=headers):
                return 101
        except SocketRefused as refused:
            return refused.status

    assert (101 if opens else 403) == await open_one()


async def test_two_origins_or_hosts_are_refused() -> None:
    for twice in ("origin", "host"):
        headers = [("host", "good.com"), ("origin", "http://good.com"), (twice, "evil.com")]
        with pytest.raises(SocketRefused):
            async with websocket(spoken(), headers=headers):
                raise AssertionError("it was opened")


async def test_a_browser_offers_our_subprotocol_beside_its_token_and_gets_it() -> None:
    async with websocket(spoken(), subprotocols=["bearer.good", "jina-asgi.json"]) as socket:
        assert "jina-asgi.json" == socket.subprotocol
    async with websocket(spoken(), subprotocols=["other"]) as socket:
        assert socket.subprotocol is None


@pytest.mark.parametrize("path", ["/", "/-/other", "/echo", "/-/ws/"])
async def test_there_is_no_socket_elsewhere(path: str) -> None:
    with pytest.raises(SocketRefused) as refused:
        async with websocket(spoken(), path):
            raise AssertionError("it was opened")
    assert 404 == refused.value.status


# Where it is mounted, and when it ends.


async def test_it_is_below_the_prefix_of_a_mount_and_of_a_root_path() -> None:
    host = FastAPI()
    mount(host, "/lm", Spoken, wait_ready=True)
    for root_path in ("", "/proxy"):
        async with websocket(host, "/lm/-/ws", root_path=root_path) as socket:
            await socket.send(call(1, "/count", "t", n=1))
            assert ["t0"] == texts(await outcome(socket, 1), 1)


async def test_it_is_included_in_a_fastapi_app_behind_the_host_s_dependencies() -> None:
    async def known(connection: HTTPConnection) -> None:
        if connection.headers.get("x-key") != "good":
            raise WebSocketException(1008, "no key")

    host = FastAPI()
    include(host, Spoken, prefix="/lm", dependencies=[Depends(known)])
    async with websocket(host, "/lm/-/ws", headers={"x-key": "good"}) as socket:
        await socket.send(call(1, "/count", "t", n=1))
        assert ["t0"] == texts(await outcome(socket, 1), 1)
    with pytest.raises(SocketRefused):
        async with websocket(host, "/lm/-/ws"):
            raise AssertionError("it was opened")


async def test_the_end_of_serving_finishes_calls_refuses_new_ones_and_closes_1001() -> None:
    asgi = spoken()
    lifespan = asgi.lifespan()
    await lifespan.__aenter__()
    async with connected(asgi, "/-/ws") as socket, connected(asgi, "/-/ws") as idle:
        await socket.send(call(1, "/idle", "mine", n=1))
        await socket.receive()
        ending = asyncio.ensure_future(lifespan.__aexit__(None, None, None))
        with pytest.raises(SocketClosed, match="draining") as closed:
            await idle.receive()
        assert 1001 == closed.value.code
        await socket.send(call(2, "/echo"))
        refused = await socket.receive()
        assert (2, "NotReady", True) == (refused["id"], refused["error"]["type"], refused["error"]["retriable"])
        await socket.send({"id": 1, "event": "cancel"})
        assert (await outcome(socket, 1))[-1]["cancelled"]
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert 1001 == closed.value.code
        await ending


async def test_calls_that_outlast_the_grace_period_get_an_error() -> None:
    asgi = JinaASGI(Deployment(Spoken, grace=0.05), wait_ready=True)
    lifespan = asgi.lifespan()
    await lifespan.__aenter__()
    async with connected(asgi, "/-/ws") as socket:
        for number, endpoint in enumerate(("/idle", "/wait")):
            await socket.send(call(number, endpoint, n=1))
        await until(socket, lambda event: event["id"] == 0)
        await asyncio.gather(lifespan.__aexit__(None, None, None))
        said = [await socket.receive() for _ in range(2)]
        assert {(0, "ReplicaDied"), (1, "ReplicaDied")} == {(event["id"], event["error"]["type"]) for event in said}
        with pytest.raises(SocketClosed):
            await socket.receive()


async def test_calls_wait_for_loading_as_over_http() -> None:
    async with websocket(JinaASGI(Spoken)) as socket:  # its startup does not wait
        await socket.send(call(1, "/count", "t", n=1))
        assert ["t0"] == texts(await outcome(socket, 1), 1)


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with websocket(spoken()) as socket:
        for number in range(10):
            await socket.send(call(number, "/idle", n=1))
        await until(socket, lambda event: event["id"] == 9)
    assert before == asyncio.all_tasks()


async def test_without_a_lifespan_calls_cross_to_the_runner_s_own_loop_and_its_end_closes_the_socket() -> None:
    asgi = JinaASGI(Spoken)
    async with connected(asgi, "/-/ws") as socket:
        await socket.send(call(1, "/count", "t"))
        assert ["t0", "t1", "t2"] == texts(await outcome(socket, 1), 1)
        await socket.send(call(2, "/idle", "mine", n=1))
        await socket.receive()
        await socket.send({"id": 2, "event": "cancel"})
        assert (await outcome(socket, 2))[-1]["cancelled"]
        await asyncio.to_thread(asgi.service.close)
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert 1001 == closed.value.code


@pytest.mark.parametrize("error", GONE)
async def test_a_client_that_is_gone_ends_the_socket_though_the_server_says_so_only_on_send(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers raise where we send before they say "disconnect"."""
    asgi = spoken()
    sent: list[str] = []

    async def receive() -> Any:
        if sent:
            await asyncio.get_running_loop().create_future()
        if not connects:
            connects.append(True)
            return {"type": "websocket.connect"}
        sent.append("asked")
        return {"type": "websocket.receive", "text": '{"id": 1, "endpoint": "/greedy", "data": {"text": "gone"}}'}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise error

    connects: list[bool] = []
    async with asgi.lifespan(), asyncio.timeout(5):
        await asgi({"type": "websocket", "path": "/-/ws", "headers": []}, receive, send)
    assert not caplog.records


def test_an_error_of_sending_that_is_no_loss_is_not_taken_for_one() -> None:
    assert not is_gone(RuntimeError("WebSocket not accepted"))


async def test_a_server_that_cancels_a_socket_ends_its_calls_first() -> None:
    asgi = spoken()
    async with asgi.lifespan(), connected(asgi, "/-/ws") as witness:
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        came = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                came.set()

        incoming.put_nowait({"type": "websocket.connect"})
        incoming.put_nowait(
            {"type": "websocket.receive", "text": '{"id": 1, "endpoint": "/idle", "data": {"text": "cut", "n": 1}}'}
        )
        scope = {"type": "websocket", "path": "/-/ws", "headers": []}
        served = asyncio.ensure_future(asgi(scope, incoming.get, send))
        await came.wait()
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
        await witness.send(call(1, "/closed", "cut"))
        assert "end" == (await outcome(witness, 1))[-1]["event"]


async def test_clients_that_leave_at_any_token_leave_nothing() -> None:
    """Five hundred of them, after 0, 1, 20 or 40 events, most while the next event is being sent."""
    asgi = spoken()
    async with asgi.lifespan():
        before = asyncio.all_tasks()
        for number in range(500):
            async with connected(asgi, "/-/ws") as socket:
                for name in ("a", "b"):
                    await socket.send(call(name, "/greedy", f"{number}{name}"))
                for _ in range((0, 1, 20, 40)[number % 4]):
                    await socket.receive()
        assert before == asyncio.all_tasks()
        async with connected(asgi, "/-/ws") as socket:
            names = [f"{number}{name}" for number in range(500) if number % 4 for name in ("a", "b")]
            begun = [{"text": name} for name in names if name.endswith("a")]
            await socket.send({"id": 1, "endpoint": "/closed", "data": begun})
            assert "end" == (await outcome(socket, 1))[-1]["event"]


async def test_a_server_s_figures_show_no_place_that_is_still_taken() -> None:
    source = Deployment(Spoken, max_queue=4)
    asgi = JinaASGI(source, wait_ready=True)
    async with asgi.lifespan():
        for _ in range(10):
            async with connected(asgi, "/-/ws") as socket:
                for number in range(4):
                    await socket.send(call(number, "/idle", n=1))
                await until(socket, lambda event: event["id"] == 3)
        async with connected(asgi, "/-/ws") as socket:
            await socket.send(call(1, "/count", n=0))
            assert [{"id": 1, "event": "end"}] == await outcome(socket, 1)


async def packed(socket: InProcessSocket) -> Any:
    """The next message, which is one in binary."""
    raw = await socket.receive_raw()
    assert isinstance(raw, bytes)
    return msgspec.msgpack.decode(raw)


async def test_a_call_in_binary_is_answered_in_binary() -> None:
    async with websocket(spoken()) as socket:
        asked = {"id": 1, "endpoint": "/any", "data": [{"value": [float("inf"), b"\xff"]}]}
        socket.send_raw(msgspec.msgpack.encode(asked))
        events = [await packed(socket) for _ in range(2)]
        assert [{"value": [float("inf"), b"\xff"]}] == events[0]["data"]
        assert {"id": 1, "event": "end"} == events[1]
        socket.send_raw(msgspec.msgpack.encode({"id": 2, "endpoint": "/count", "data": {"text": "t", "n": 1}}))
        events = [await packed(socket) for _ in range(2)]
        assert [{"id": 2, "event": "data", "data": {"text": "t0", "n": 3}}, {"id": 2, "event": "end"}] == events
        socket.send_raw(msgspec.msgpack.encode({"id": 3, "endpoint": "/nowhere", "data": []}))
        error = await packed(socket)
        assert (3, "error", 404) == (error["id"], error["event"], error["status"])
        await socket.send(call(4, "/echo", "t"))
        assert "t" == (await socket.receive())["data"][0]["text"]
