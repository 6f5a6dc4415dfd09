"""A large answer is sent in pieces, so that no server copies it at once, and a client that leaves within it ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.testing import client

MIB = 2**20


class Text(BaseModel):
    text: str


class Long(Executor):
    @requests(on="/long")
    async def long(self, docs: list[Text], parameters: dict[str, Any]) -> list[Text]:
        return [Text(text="a" * parameters["size"])]


class Exchange:
    """One request and what is sent for it; `room` is how many messages the client reads before it leaves."""

    def __init__(self, size: int, room: int = 1000) -> None:
        body = orjson.dumps({"data": {"text": ""}, "parameters": {"size": size}})
        self.given = [{"type": "http.request", "body": body, "more_body": False}]
        self.sent: list[Any] = []
        self.room, self.left = room, asyncio.Event()

    async def receive(self) -> Any:
        if self.given:
            return self.given.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if len(self.sent) == self.room:
            self.left.set()
            await asyncio.Event().wait()  # as a server waits for a client that reads nothing more
        self.sent.append(message)


SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "path": "/long",
    "raw_path": b"/long",
    "root_path": "",
    "scheme": "http",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 2),
}


@pytest.mark.parametrize(("size", "messages"), [(9, 1), (MIB // 2, 1), (5 * MIB, 6)])
async def test_no_message_is_large_and_together_they_are_the_answer(size: int, messages: int) -> None:
    app, exchange = JinaASGI(Long, wait_ready=True), Exchange(size)
    async with client(app):
        await app(dict(SCOPE), exchange.receive, exchange.send)
    start, *bodies = exchange.sent
    body = b"".join(message["body"] for message in bodies)
    assert size == len(orjson.loads(body)["data"][0]["text"])
    assert str(len(body)).encode() == dict(start["headers"])[b"content-length"]
    assert messages == len(bodies)
    assert max(len(message["body"]) for message in bodies) <= MIB
    assert [True] * (messages - 1) + [False] == [message.get("more_body", False) for message in bodies]


async def test_a_client_that_leaves_within_an_answer_ends_its_call() -> None:
    app, exchange = JinaASGI(Long, wait_ready=True), Exchange(5 * MIB, room=3)
    async with client(app), asyncio.timeout(10):
        await app(dict(SCOPE), exchange.receive, exchange.send)
    assert 3 == len(exchange.sent)
