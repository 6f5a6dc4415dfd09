"""What the WebSocket's tests serve, and how they speak of what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from pydantic import BaseModel

from jina_asgi import Context, Executor, ExecutorInputError, requests
from jina_asgi.testing import InProcessSocket


class Disconnected(OSError, RuntimeError):
    """As gunicorn's `WebSocketDisconnected`."""


#: What servers raise where we send to a client that is gone: by ASGI, and uvloop's through gunicorn's `asgi` worker.
GONE = [
    OSError(),
    Disconnected("WebSocket closed"),
    RuntimeError("unable to perform operation on <TCPTransport closed=True reading=False 0x1>; the handler is closed"),
]


class Text(BaseModel):
    text: str = ""
    n: int = 3


class Anything(BaseModel):
    value: Any = None


class Spoken(Executor):
    """Its streams say in `closed` that their generators were."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.closed: list[str] = []
        self.made = 0
        self.changed = asyncio.Condition()

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/any")
    async def any(self, docs: list[Anything]) -> list[Anything]:
        return docs

    @requests(on="/told")
    async def told(self, docs: list[Text], parameters: dict[str, Any], context: Context) -> list[Anything]:
        left = context.deadline is not None
        return [Anything(value=[parameters, context.request_id, context.headers.get("x-who"), context.identity, left])]

    @requests(on="/count")
    async def count(self, doc: Text) -> AsyncGenerator[Text, None]:
        for index in range(doc.n):
            yield Text(text=f"{doc.text}{index}")

    @requests(on="/greedy")
    async def greedy(self, doc: Text) -> AsyncGenerator[Text, None]:
        """Never lets go of the loop, and never ends."""
        try:
            while True:
                self.made += 1
                yield doc
        finally:
            await self._close(doc.text)

    @requests(on="/idle")
    async def idle(self, doc: Text) -> AsyncGenerator[Text, None]:
        """`n` documents, then nothing for good."""
        try:
            for _ in range(doc.n):
                yield doc
            await asyncio.get_running_loop().create_future()
        finally:
            await self._close(doc.text)

    @requests(on="/sync")
    def sync(self, doc: Text) -> Generator[Text, None, None]:
        for index in range(doc.n):
            yield Text(text=f"{doc.text}{index}")

    @requests(on="/wait")
    async def wait(self, docs: list[Text]) -> list[Text]:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._close(docs[0].text)
        return docs

    @requests(on="/fail")
    async def fail(self, doc: Text) -> AsyncGenerator[Text, None]:
        for index in range(doc.n):
            yield Text(text=str(index))
        if doc.text == "input":
            raise ExecutorInputError("ask for less")
        raise ValueError("pw=SECRET")

    @requests(on="/closed")
    async def has_closed(self, docs: list[Text]) -> list[Text]:
        """Answers once the streams and calls of these names are closed."""
        async with self.changed:
            await self.changed.wait_for(lambda: {doc.text for doc in docs} <= set(self.closed))
        return docs

    async def _close(self, name: str) -> None:
        self.closed.append(name)
        async with self.changed:
            self.changed.notify_all()


def call(identity: Any, endpoint: str, text: str = "", /, n: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": identity, "endpoint": endpoint, "data": {"text": text, "n": n}, **more}


async def until(socket: InProcessSocket, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The events up to one of a kind."""
    events = [await socket.receive()]
    while not last(events[-1]):
        events.append(await socket.receive())
    return events


async def outcome(socket: InProcessSocket, identity: Any) -> list[dict[str, Any]]:
    """The events up to the last one of a call."""
    return await until(socket, lambda event: event["id"] == identity and event["event"] in ("end", "error"))


def texts(events: list[dict[str, Any]], identity: Any) -> list[str]:
    """The texts that a stream gave, which ended well."""
    own = [event for event in events if event["id"] == identity]
    assert {"id": identity, "event": "end"} == own[-1]
    assert ["data"] * (len(own) - 1) == [event["event"] for event in own[:-1]]
    return [event["data"]["text"] for event in own[:-1]]
