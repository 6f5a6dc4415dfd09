"""Jina's binary WebSocket: requests as Jina's clients write them, over a real uvicorn."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from docarray.proto import DocListProto
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from jina_asgi import Context, Deployment, Executor, JinaASGI, Limits, mount, requests
from jina_asgi.protocols.protobuf.messages import DataRequestProto, StatusProto
from tests.doubles.uvicorn_server import serving
from tests.doubles.websockets import GONE

pytestmark = pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")  # docarray's own

END = b"\x00"


class Text(BaseDoc):
    text: str = ""


class Bytes(Executor):
    """`/wait` answers once `/go` has named its text; what runs and what was cancelled is kept."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gone: set[str] = set()
        self.running: list[str] = []
        self.most = 0
        self.cancelled: list[str] = []
        self.changed = asyncio.Condition()

    @requests
    async def default(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text=f"default {doc.text}") for doc in docs])

    @requests(on="/upper")
    async def upper(self, docs: DocList[Text], parameters: dict, context: Context) -> DocList[Text]:
        end = f"{parameters.get('end', '')}{context.headers.get('x-end', '')}{context.identity or ''}"
        return DocList[Text]([Text(id=doc.id, text=doc.text.upper() + end) for doc in docs])

    @requests(on="/fail")
    async def fail(self, docs: DocList[Text]) -> DocList[Text]:
        raise ValueError("pw=SECRET")

    @requests(on="/cancelled")
    async def is_cancelled(self, docs: DocList[Text]) -> DocList[Text]:
        raise asyncio.CancelledError

    @requests(on="/dict")
    async def counted(self, docs: DocList[Text]) -> dict:
        return {"n": len(docs)}

    @requests(on="/stream")
    async def stream(self, doc: Text) -> Text:
        yield doc

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        text = docs[0].text
        async with self.changed:
            self.running.append(text)
            self.most = max(self.most, len(self.running))
            self.changed.notify_all()
        try:
            async with self.changed:
                await self.changed.wait_for(lambda: text in self.gone)
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        finally:
            self.running.remove(text)
            async with self.changed:
                self.changed.notify_all()
        return docs

    @requests(on="/go")
    async def go(self, docs: DocList[Text]) -> DocList[Text]:
        async with self.changed:
            self.gone.update(doc.text for doc in docs)
            self.changed.notify_all()
        return docs

    @requests(on="/runs")
    async def runs(self, docs: DocList[Text]) -> DocList[Text]:
        """Answers once the calls of these texts run; with how many did at most."""
        async with self.changed:
            await self.changed.wait_for(lambda: {doc.text for doc in docs} <= set(self.running))
        return DocList[Text]([Text(text=str(self.most))])

    @requests(on="/ended")
    async def has_ended(self, docs: DocList[Text]) -> DocList[Text]:
        """Answers once the calls of these texts were cancelled."""
        async with self.changed:
            await self.changed.wait_for(lambda: {doc.text for doc in docs} <= set(self.cancelled))
        return docs


def request(endpoint: str, *texts: str, identifier: str = "r", **parameters: Any) -> bytes:
    """What Jina's Client sends, its docs written by docarray."""
    message = DataRequestProto()
    message.header.request_id, message.header.exec_endpoint = identifier, endpoint
    message.parameters.update(parameters)
    docs = DocList[Text]([Text(text=text) for text in texts])
    message.data.docs.ParseFromString(docs.to_protobuf().SerializeToString())
    return bytes(message.SerializeToString())


def texts(answer: Any) -> list[str]:
    """The docs of an answer, read by docarray."""
    docs = DocListProto.FromString(answer.data.docs.SerializeToString())
    return [doc.text for doc in DocList[Text].from_protobuf(docs)]


async def answer(socket: ClientConnection) -> Any:
    return DataRequestProto.FromString(await asyncio.wait_for(socket.recv(decode=False), 10))


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    """How the server closed a socket on which nothing more was said."""
    with pytest.raises(ConnectionClosed) as raised:
        await asyncio.wait_for(socket.recv(), 10)
    assert raised.value.rcvd is not None
    return raised.value.rcvd.code, raised.value.rcvd.reason


def opened(port: int, path: str = "/", **more: Any) -> connect:
    return connect(f"ws://127.0.0.1:{port}{path}", subprotocols=[Subprotocol("bytes")], max_size=None, **more)


@asynccontextmanager
async def served(source: Any = Bytes, **options: Any) -> AsyncIterator[int]:
    async with serving(JinaASGI(source, wait_ready=True, **options), lifespan="on") as port:
        yield port


async def test_a_request_is_answered_with_its_own_id_parameters_and_routes_and_no_subprotocol_is_named() -> None:
    async with served() as port, opened(port, additional_headers={"x-end": "?"}) as socket:
        assert socket.subprotocol is None
        await socket.send(request("/upper", "a", "b", identifier="mine", end="!"))
        answered = await answer(socket)
    assert ["A!?", "B!?"] == texts(answered)
    assert ("mine", 0, "!") == (answered.header.request_id, answered.header.status.code, answered.parameters["end"])
    assert ["gateway", "executor"] == [route.executor for route in answered.routes]


@pytest.mark.parametrize("endpoint", ["/", "/nowhere", ""])
async def test_what_no_endpoint_is_named_is_answered_by_default(endpoint: str) -> None:
    async with served() as port, opened(port) as socket:
        await socket.send(request(endpoint, "a"))
        assert ["default a"] == texts(await answer(socket))


async def test_a_dict_is_in_the_parameters() -> None:
    async with served() as port, opened(port) as socket:
        await socket.send(request("/dict", "a", "b"))
        [(name, results)] = (await answer(socket)).parameters["__results__"].items()
    assert ("executor/rep-0", {"n": 2}) == (name, dict(results))


async def test_answers_come_as_they_are_ready_and_the_end_of_input_closes_behind_the_last() -> None:
    async with served() as port, opened(port) as socket:
        await socket.send(request("/wait", "slow", identifier="slow"))
        await socket.send(request("/upper", "quick", identifier="quick"))
        assert "quick" == (await answer(socket)).header.request_id
        await socket.send(request("/go", "slow", identifier="go"))
        assert {"slow", "go"} == {(await answer(socket)).header.request_id for _ in range(2)}
        await socket.send(END)
        assert (1000, "") == await closed(socket)


async def test_what_is_open_at_the_end_of_input_is_answered_and_what_follows_is_an_error() -> None:
    async with served() as port, opened(port) as other, opened(port) as socket:
        await socket.send(request("/wait", "a", identifier="kept"))
        await socket.send(END)
        await socket.send(request("/upper", "a", identifier="late"))
        late = await answer(socket)
        assert ("late", 1) == (late.header.request_id, late.header.status.code)
        assert "after the end of input" in late.header.status.description
        await other.send(request("/go", "a"))
        kept = await answer(socket)
        assert ("kept", 0) == (kept.header.request_id, kept.header.status.code)
        assert (1000, "") == await closed(socket)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (request("/fail", "a"), "ExecutorError"),
        (request("/stream", "a"), "InvalidDocs"),
        (request("/cancelled", "a"), "ExecutorError"),
        (b"\xff\xff", "InvalidRequest"),
        (request("/upper", *"abcdefghijk"), "TooLarge"),
    ],
    ids=["fail", "stream", "cancelled", "garbage", "too many"],
)
async def test_an_error_is_reported_in_its_answer_and_others_go_on(raw: bytes, name: str) -> None:
    async with served(limits=Limits(docs=10)) as port, opened(port) as socket:
        await socket.send(raw)
        answered = await answer(socket)
        assert (1, name) == (answered.header.status.code, answered.header.status.exception.name)
        assert "SECRET" not in str(answered)
        await socket.send(request("/upper", "a"))
        assert ["A"] == texts(await answer(socket))


async def test_a_socket_outlives_an_error_for_a_moment() -> None:
    """Jina's Client raises it only while the socket is open, and leaves as it does."""
    async with served() as port, opened(port) as socket:
        await socket.send(b"no message")
        await socket.send(END)
        assert 1 == (await answer(socket)).header.status.code
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await socket.wait_closed()
        assert (1000, "") == await closed(socket)


# Room for everybody.


async def test_only_so_many_requests_are_open_at_once_and_all_are_answered() -> None:
    async with served(limits=Limits(socket_calls=3)) as port, opened(port) as other, opened(port) as socket:
        for number in range(20):
            await socket.send(request("/wait", str(number), identifier=str(number)))
        await other.send(request("/runs", "0", "1", "2"))
        await answer(other)
        await other.send(request("/go", *map(str, range(20))))
        await answer(other)
        assert set(map(str, range(20))) == {(await answer(socket)).header.request_id for _ in range(20)}
        await other.send(request("/runs"))
        assert ["3"] == texts(await answer(other))


async def test_a_request_waits_for_its_place_in_a_full_queue_while_others_of_its_socket_are_answered() -> None:
    begun, came, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Waiting(Executor):
        @requests(on="/first")
        async def first(self, docs: DocList[Text]) -> DocList[Text]:
            begun.set()
            await may_end.wait()
            return docs

        @requests(on="/second")
        async def second(self, docs: DocList[Text]) -> DocList[Text]:
            return docs

    async def auth(headers: Mapping[str, str], endpoint: str) -> str:
        if endpoint == "/second":
            came.set()  # whoever waits for this goes on once the request has been refused its place
        return "me"

    async with served(Deployment(Waiting, max_queue=1), auth=auth) as port, opened(port) as socket:
        await socket.send(request("/first", "a", identifier="first"))
        await begun.wait()
        await socket.send(request("/second", "b", identifier="second"))
        await came.wait()
        may_end.set()
        headers = [(await answer(socket)).header for _ in range(2)]
    assert [("first", 0), ("second", 0)] == [(header.request_id, header.status.code) for header in headers]


async def test_a_request_that_others_keep_from_its_place_learns_when_to_come_back() -> None:
    asgi = JinaASGI(Deployment(Bytes, max_queue=1), wait_ready=True)
    async with asgi.lifespan(), serving(asgi) as port, opened(port) as socket:
        ticket = (await asgi.service.runner()).admit("/upper", size=1)
        await socket.send(request("/upper", "b"))
        status = (await answer(socket)).header.status
        ticket.close()
        assert "Overloaded" == status.exception.name
        assert '"retry_after"' in status.exception.args[1]


@pytest.mark.parametrize(
    ("message", "code", "reason"), [("text", 1003, "binary"), (b"x" * 201, 1009, "at most 200 bytes")]
)
async def test_text_or_what_is_too_large_closes_the_socket_and_ends_its_calls(
    message: Any, code: int, reason: str
) -> None:
    async with served(limits=Limits(body=200)) as port, opened(port) as other, opened(port) as socket:
        await socket.send(request("/wait", "a"))
        await other.send(request("/runs", "a"))
        await answer(other)
        await socket.send(message)
        told = await closed(socket)
        assert code == told[0]
        assert reason in str(told[1])
        await other.send(request("/ended", "a"))
        assert 0 == (await answer(other)).header.status.code


async def test_a_client_that_leaves_ends_its_calls_also_where_no_more_may_begin() -> None:
    async with served(limits=Limits(socket_calls=2)) as port, opened(port) as other:
        async with opened(port) as socket:
            for text in "ab":
                await socket.send(request("/wait", text))
            await other.send(request("/runs", "a", "b"))
            await answer(other)
        await other.send(request("/ended", "a", "b"))
        assert 0 == (await answer(other)).header.status.code


@pytest.mark.parametrize("error", GONE)
@pytest.mark.parametrize("path", ["/", "/dry_run"])
async def test_a_client_that_is_gone_ends_the_socket_though_the_server_says_so_only_on_send(
    path: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    asgi = JinaASGI(Bytes, wait_ready=True)
    said = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "bytes": request("/upper", "a")}])

    async def receive() -> Any:
        for message in said:
            return message
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise error

    async with asgi.lifespan(), asyncio.timeout(5):
        await asgi({"type": "websocket", "path": path, "headers": [], "subprotocols": ["bytes"]}, receive, send)
    assert not caplog.records


# Who may connect, and until when.


async def test_a_page_of_another_origin_is_refused() -> None:
    async with served() as port:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(port, origin=Origin("http://evil.com")):
                raise AssertionError("it was opened")
        assert 403 == refused.value.response.status_code
        async with opened(port, origin=Origin(f"http://127.0.0.1:{port}")):
            pass


async def test_auth_is_asked_at_the_handshake_and_about_each_endpoint() -> None:
    async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
        if endpoint == "/fail":
            raise HTTPException(403, "not you")
        return None if endpoint == "/dict" or headers.get("x-key") != "good" else f"{endpoint}"

    async with served(auth=auth) as port:
        for path in ("/", "/dry_run"):
            with pytest.raises(InvalidStatus) as refused:
                async with opened(port, path):
                    raise AssertionError("it was opened")
            assert 401 == refused.value.response.status_code
        async with opened(port, additional_headers={"x-key": "good"}) as socket:
            for endpoint, name in (("/dict", "Unauthenticated"), ("/fail", "HTTPException")):
                await socket.send(request(endpoint, "a", identifier=endpoint[1:]))
                header = (await answer(socket)).header
                assert (endpoint[1:], name) == (header.request_id, header.status.exception.name)
            await socket.send(request("/upper", "a"))
            assert ["A/upper"] == texts(await answer(socket))


async def test_a_hook_that_is_cancelled_by_no_caller_is_an_error_of_its_request() -> None:
    async def auth(headers: Mapping[str, str], endpoint: str) -> str:
        if endpoint == "/upper":
            raise asyncio.CancelledError
        return "me"

    async with served(auth=auth) as port, opened(port) as socket:
        await socket.send(request("/upper", "a"))
        assert "InternalError" == (await answer(socket)).header.status.exception.name


async def test_the_end_of_serving_answers_what_is_open_refuses_what_is_new_and_closes_1001() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Waiting(Executor):
        @requests
        async def wait(self, docs: DocList[Text]) -> DocList[Text]:
            begun.set()
            await may_end.wait()
            return docs

    asgi = JinaASGI(Waiting, wait_ready=True)
    async with serving(asgi) as port:
        life = asgi.lifespan()
        await life.__aenter__()
        async with opened(port) as idle, opened(port) as socket:
            await socket.send(request("/", "a", identifier="kept"))
            await begun.wait()
            ending = asyncio.create_task(life.__aexit__(None, None, None))
            assert (1001, "draining") == await closed(idle)
            await socket.send(request("/", "a", identifier="late"))
            refused = await answer(socket)
            assert ("late", "NotReady") == (refused.header.request_id, refused.header.status.exception.name)
            may_end.set()
            kept = await answer(socket)
            assert ("kept", ["a"]) == (kept.header.request_id, texts(kept))
            assert (1001, "draining") == await closed(socket)
            await ending


# Whether it is ready.


async def test_readiness_is_a_status() -> None:
    async with served() as port, opened(port, "/dry_run") as socket:
        await socket.send(b"")
        status = StatusProto.FromString(await socket.recv(decode=False))
        assert (0, "") == (status.code, status.description)
        assert (1000, "") == await closed(socket)


async def test_who_asks_while_it_loads_gets_an_error() -> None:
    loaded = threading.Event()

    class Slow(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            loaded.wait()

        @requests
        async def default(self, docs: DocList[Text]) -> DocList[Text]:
            return docs

    asgi = JinaASGI(Slow)
    async with serving(asgi) as port, asgi.lifespan(), opened(port, "/dry_run") as socket:
        await socket.send(b"")
        status = StatusProto.FromString(await socket.recv(decode=False))
        assert (1, "still loading", "NotReady") == (status.code, status.description, status.exception.name)
        loaded.set()


async def test_readiness_is_not_asked_by_text() -> None:
    async with served() as port, opened(port, "/dry_run") as socket:
        await socket.send("ready?")
        assert 1003 == (await closed(socket))[0]


async def test_it_is_below_the_prefix_of_a_mount() -> None:
    host = Starlette()
    mount(host, "/lm", Bytes, wait_ready=True)
    async with serving(host, lifespan="on") as port, opened(port, "/lm/") as socket:
        await socket.send(request("/upper", "a"))
        assert ["A"] == texts(await answer(socket))


async def test_no_task_is_left_behind() -> None:
    asgi = JinaASGI(Bytes, wait_ready=True)
    async with asgi.lifespan(), serving(asgi) as port:
        before = len(asyncio.all_tasks())
        async with opened(port) as other:
            async with opened(port) as socket:
                await socket.send(request("/wait", "a"))
                await other.send(request("/runs", "a"))
                await answer(other)
            await other.send(request("/ended", "a"))
            await answer(other)
            await other.send(END)
            await closed(other)
        await asyncio.sleep(0)  # the client's own task, which it cancelled as it left
        assert before == len(asyncio.all_tasks())


WITHOUT = """
    import asyncio, sys
    sys.modules["google.protobuf"] = None  # as if it were not installed
    from pydantic import BaseModel
    from jina_asgi import Executor, JinaASGI, requests
    from jina_asgi.testing import SocketClosed, websocket

    class Text(BaseModel):
        text: str = ""

    class Model(Executor):
        @requests
        async def default(self, docs: list[Text]) -> list[Text]:
            return docs

    async def main():
        for path in ("/", "/dry_run"):
            async with websocket(JinaASGI(Model), path, subprotocols=["bytes"]) as socket:
                try:
                    await socket.receive()
                except SocketClosed as closed:
                    print(closed.code, closed.reason)

    asyncio.run(main())
"""


@pytest.mark.processes
def test_without_protobuf_it_learns_which_extra_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WITHOUT)], capture_output=True, text=True, check=True
    )
    told = "4406 Jina's WebSocket needs the extra grpc: pip install 'jina-asgi[grpc]'"
    assert [told, told] == done.stdout.splitlines()
