"""One socket that floods, or names its calls oddly, harms neither its other calls nor those who ask elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from jina_asgi import JinaASGI
from jina_asgi.protocols.websocket.asgi_transport import connected
from tests.doubles.websockets import Spoken, call, outcome, texts

IDS = [str(2**64), str(-(2**63) - 1), "9" * 400, "9" * 5000, "1.0", "1e3", "1e400", "null", "true", "[]", "{}", "[1]"]
IDS += ['{"id":1}', '"%s"' % ("a" * 129), r'"\ud800"', '"\ud800"', "[" * 9000 + "]" * 9000, "", "NaN", '"', "\x00"]
FORMS = ['{"id":%s,"endpoint":"/echo","data":[]}', '{"id":%s,"event":"cancel"}', '{"id":%s,"event":"other"}']
FORMS += ['{"endpoint":1,"id":%s}', '{"id":%s,"timeout":-1}', '{"id":%s,"timeout":%s}']


@pytest.mark.parametrize("form", FORMS)
async def test_whatever_an_id_is_the_socket_and_its_calls_go_on(form: str) -> None:
    async with connected(JinaASGI(Spoken, wait_ready=True), "/-/ws") as socket:
        await socket.send(call("open", "/count", n=10**6))
        assert "open" == (await socket.receive())["id"]
        for odd in IDS:
            socket.send_raw(form.replace("%s", odd))
            while (said := await socket.receive())["id"] == "open":
                assert "data" == said["event"]
            assert (None, "error") == (said["id"], said["event"])
        await socket.send({"id": "open", "event": "cancel"})
        while (said := await socket.receive())["event"] != "end":
            assert "open" == said["id"]
        await socket.send(call("after", "/count", "t"))
        assert ["t0", "t1", "t2"] == texts(await outcome(socket, "after"), "after")


FLOODS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "calls": ("/-/ws", [], {"text": '{"id":1,"endpoint":"/echo","data":[]}'}),
    "no calls": ("/-/ws", [], {"text": "x"}),
    "cancels of nothing": ("/-/ws", [], {"text": '{"id":1,"event":"cancel"}'}),
    "calls of many values": ("/-/ws", [], {"text": orjson.dumps({"id": 1, "x": [[]] * 4000}).decode()}),
    "requests": ("/", ["bytes"], {"bytes": b"\x0a\x00"}),
    "ends of input": ("/", ["bytes"], {"bytes": b"\x00"}),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_the_loop_turns_while_a_socket_is_flooded(name: str) -> None:
    """Its receiver never waits, as where a server has read many messages at one go."""
    path, offered, message = FLOODS[name]
    turns: list[int] = [0]

    async def turning() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append(0)

    async def receive() -> dict[str, Any]:
        if sum(turns) == 0 and len(turns) == 1:
            turns.append(0)
            return {"type": "websocket.connect"}
        turns[-1] += 1
        if sum(turns) > 5000:
            return {"type": "websocket.disconnect", "code": 1000}
        return {"type": "websocket.receive", **message}

    async def send(_: Any) -> None:
        """The client does not read."""

    scope = {"type": "websocket", "path": path, "headers": [], "subprotocols": offered, "query_string": b""}
    asgi = JinaASGI(Spoken, wait_ready=True)
    async with asgi.lifespan():
        other = asyncio.create_task(turning())
        async with asyncio.timeout(20):
            await asgi(scope, receive, send)
        other.cancel()
    assert 0 < max(turns) <= 16
