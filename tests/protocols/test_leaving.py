"""Those who ask and leave at an awkward moment: what they had taken is given back, and others are served."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from docarray import BaseDoc

from jina_asgi.documents.codec import codec
from jina_asgi.documents.msgpack import unpack
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import InvalidDocs, JinaASGIError
from jina_asgi.protocols.remote.transport import OutgoingRequest
from jina_asgi.protocols.websocket.client import Wire as ClientWire
from jina_asgi.protocols.websocket.remote import CallLink
from tests.doubles.websocket_runner import app_dialler


class Text(BaseDoc):
    text: str = ""


def asked(**parameters: Any) -> OutgoingRequest:
    reader = codec(schema_of(Text))
    return OutgoingRequest(endpoint="/go", docs=reader.docs([Text()]), parameters=parameters)


class Wire(ClientWire):
    """A connection whose messages a test sees and gives; `slow` ones wait to be sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[str] = asyncio.Queue()
        self.room = asyncio.Event()
        self.room.set()
        self.closed = False

    async def send(self, message: str | bytes) -> None:
        self.sent.append(unpack(message) if isinstance(message, bytes) else orjson.loads(message))
        await self.room.wait()

    async def receive(self) -> str | bytes:
        return await self.incoming.get()

    async def close(self) -> None:
        self.closed = True

    def say(self, identity: Any, event: str, **more: Any) -> None:
        self.incoming.put_nowait(orjson.dumps({"id": identity, "event": event, **more}).decode())


async def test_a_stream_that_is_given_up_while_it_is_asked_for_holds_up_no_other_on_its_socket() -> None:
    wire = Wire()
    link = CallLink(wire, "server")
    wire.room.clear()
    leaving = asyncio.ensure_future(link.begin(asked()))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    wire.room.set()
    for _ in range(100):
        wire.say(1, "data", data={})
    wire.say(1, "end")
    opened = await asyncio.wait_for(link.begin(asked()), 5)
    wire.say(2, "data", data={})
    assert await asyncio.wait_for(opened.next(), 5) == {"id": 2, "event": "data", "data": {}}
    wire.say(2, "end")
    assert await opened.next() is None
    assert (len(link), [message.get("event") for message in wire.sent]) == (0, [None, "cancel", None])
    await link.close()
    assert wire.closed


async def test_an_event_that_cannot_be_understood_ends_every_call_of_its_socket() -> None:
    wire = Wire()
    link = CallLink(wire, "server")
    opened = await link.begin(asked())
    wire.say([1], "end")
    with pytest.raises(JinaASGIError):
        await asyncio.wait_for(opened.next(), 5)
    assert not link.alive
    await link.close()


async def test_a_call_that_cannot_be_written_leaves_its_socket_empty() -> None:
    link = CallLink(Wire(), "server")
    with pytest.raises(InvalidDocs):
        await link.begin(asked(lone="\ud800"))
    assert len(link) == 0
    await link.close()


@pytest.mark.parametrize("later", range(4))
async def test_the_application_learns_of_an_abandoned_handshake(later: int) -> None:
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                said.append(message["type"])
        finally:
            said.append("over")

    opening = asyncio.ensure_future(app_dialler(app)("/-/ws", {}))
    for _ in range(later):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert said[-1:] == (["over"] if said else [])
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
