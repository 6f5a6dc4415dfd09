"""The asking half of the JSON WebSocket, beyond what the conformance suite asks of every Runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from jina_asgi import Deployment, JinaASGI
from jina_asgi.documents.codec import codec
from jina_asgi.errors import NotReady, Overloaded, ProtocolError, ReplicaDied, TooLarge, Unauthenticated
from jina_asgi.protocols.remote.transport import OutgoingRequest
from jina_asgi.protocols.websocket.client import Wire, WireClosed
from jina_asgi.protocols.websocket.dial import dialler
from jina_asgi.protocols.websocket.remote import CallLink
from jina_asgi.testing import ASGITransport
from jina_asgi.types import Call, Context, Endpoint
from tests.doubles.uvicorn_server import free_port
from tests.doubles.websocket_runner import WebSocketRunner, app_dialler
from tests.doubles.websockets import Spoken, Text

ENDPOINTS: Mapping[str, Endpoint] = Deployment(Spoken).endpoints


def asked(endpoint: str, text: str = "", n: int = 3, **context: Any) -> Call:
    docs = codec(ENDPOINTS[endpoint].input).docs([Text(text=text, n=n)])
    return Call(endpoint, docs, {}, Context(**context))


class Counted:
    """Sockets on an app, counted."""

    def __init__(self, asgi: JinaASGI) -> None:
        self._dial, self.opened = app_dialler(asgi), list[Any]()

    async def __call__(self, url: str, headers: Mapping[str, str]) -> Any:
        self.opened.append(await self._dial(url, headers))
        return self.opened[-1]


@asynccontextmanager
async def asking(asgi: JinaASGI) -> AsyncIterator[tuple[WebSocketRunner, Counted]]:
    dial = Counted(asgi)
    runner = WebSocketRunner("http://test", dial=dial, transport=ASGITransport(asgi), endpoints=ENDPOINTS)
    async with asgi.lifespan(), runner.lifespan():
        yield runner, dial


async def test_calls_share_a_socket_and_a_stream_has_its_own() -> None:
    async with asking(JinaASGI(Spoken, wait_ready=True)) as (runner, dial):
        await asyncio.gather(*(runner.call(asked("/echo", str(number))) for number in range(20)))
        assert 1 == len(dial.opened)
        async with aclosing(runner.stream(asked("/greedy", "slow"))) as steps:
            await anext(steps)  # and no more: its events fill what they may
            for number in range(50):
                [doc] = (await runner.call(asked("/echo", str(number)))).docs.typed
                assert str(number) == doc.text
            assert 2 == len(dial.opened)
        async with aclosing(runner.stream(asked("/count"))) as steps:
            assert 3 == len([docs async for docs in steps])
        assert 2 == len(dial.opened), "what was left is used again"


async def test_callers_with_other_headers_have_other_sockets() -> None:
    async with asking(JinaASGI(Spoken, wait_ready=True)) as (runner, dial):
        for who in ("a", "b", "a"):
            [doc] = (await runner.call(asked("/told", headers={"x-who": who}))).docs.typed
            assert who == doc.value[2]
        assert 2 == len(dial.opened)


async def test_what_breaks_with_its_socket_is_reported_and_the_next_call_has_another() -> None:
    async with asking(JinaASGI(Spoken, wait_ready=True)) as (runner, dial):
        waiting = asyncio.ensure_future(runner.call(asked("/wait")))
        async with aclosing(runner.stream(asked("/idle", n=1))) as steps:
            await anext(steps)
            for wire in dial.opened:
                await wire.close()
            with pytest.raises(ReplicaDied):
                await anext(steps)
        with pytest.raises(ReplicaDied):
            await waiting
        assert 1 == len((await runner.call(asked("/echo"))).docs)


async def test_a_handshake_that_is_refused_is_the_server_s_word() -> None:
    async def nobody(headers: Mapping[str, str], endpoint: str) -> str | None:
        return None if endpoint == "/-/ws" else "somebody"

    async with asking(JinaASGI(Spoken, wait_ready=True, auth=nobody)) as (runner, _):
        with pytest.raises(Unauthenticated):
            await runner.call(asked("/echo"))


async def test_where_no_server_listens_the_call_gets_an_error() -> None:
    with pytest.raises(NotReady, match="cannot connect"):
        await dialler()(f"ws://127.0.0.1:{free_port()}/-/ws", {})


class Scripted(Wire):
    """A connection whose other side says what a test wrote down."""

    def __init__(self, *said: str | WireClosed) -> None:
        self._said = list(said)
        self.sent: list[str | bytes] = []
        self._asked = asyncio.Event()

    async def send(self, message: str | bytes) -> None:
        self.sent.append(message)
        self._asked.set()

    async def receive(self) -> str:
        await self._asked.wait()
        if not self._said:
            await asyncio.get_running_loop().create_future()
        said = self._said.pop(0)
        if isinstance(said, WireClosed):
            raise said
        return said

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (WireClosed(1009, "too big"), TooLarge),
        (WireClosed(1001, "draining"), ReplicaDied),
        ("{", ProtocolError),
        ("[]", ProtocolError),
        (
            '{"id":1,"event":"error","status":503,"detail":"full","retry_after":7,"error":{"type":"Overloaded"}}',
            Overloaded,
        ),
    ],
)
async def test_what_the_other_side_says_amiss_ends_the_call(said: Any, error: type[Exception]) -> None:
    link = CallLink(Scripted('{"id":null,"event":"ping"}', '{"id":99,"event":"end"}', said), "it")
    docs = codec(ENDPOINTS["/echo"].input).docs([Text()])
    opened = await link.begin(OutgoingRequest(endpoint="/echo", docs=docs))
    with pytest.raises(error) as raised:
        await opened.next()
    assert error is not Overloaded or 7 == getattr(raised.value, "retry_after", None)
    await link.close()
