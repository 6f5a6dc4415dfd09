"""An httpx transport to an ASGI app, without sockets, that streams: messages arrive while the app still runs.

httpx's own transport buffers the whole response. Closing a response early shows the app that its client left, and waits
for the app to end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple, Self

import httpx
import orjson
from starlette.types import ASGIApp

from jina_asgi.concurrency.offload import LARGE, parse_if
from jina_asgi.concurrency.tasks import mark_retrieved, start_task, wait_for_first
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.http.json_pieces import MAX_LEVELS, loads

_WINDOW = 16  # messages by which an app may be ahead of its reader


class ASGITransport(httpx.AsyncBaseTransport):
    """Sends requests to `app`; its exceptions reach the caller.

    Args:
        app: any ASGI application.
        root_path: the app's prefix; it is part of `path`, as with servers.
        client: the address that the app sees.
        state: the `scope["state"]` of the app's lifespan.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        root_path: str = "",
        client: tuple[str, int] = ("testclient", 50000),
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._app, self._root_path, self._client, self._state = app, root_path, client, state or {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _AsgiExchange(request)
        await exchange.start(self._app, self._scope(request))
        return httpx.Response(exchange.status, headers=exchange.headers, stream=exchange, request=request)

    def _scope(self, request: httpx.Request) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(key.lower(), value) for key, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": self._root_path + request.url.path,
            "raw_path": self._root_path.encode() + request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port or {"https": 443}.get(request.url.scheme, 80)),
            "client": self._client,
            "root_path": self._root_path,
            "state": dict(self._state),
        }


class _AsgiExchange(httpx.AsyncByteStream):
    """One request and its response, between the app and the client."""

    def __init__(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self._body: AsyncIterator[bytes] | None = aiter(request.stream)
        self._whole = b"".join(request.stream) if isinstance(request.stream, httpx.ByteStream) else None
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_WINDOW)
        self._left = asyncio.Event()
        self._over = asyncio.Event()  # the client left, or has the whole response
        self._more = True  # the reader has not met the end of the response
        self.status, self.headers = 500, list[tuple[bytes, bytes]]()

    async def start(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Run the app until its response begins."""
        self._task = start_task(self._run(app, scope), self._ended)
        try:
            first = await self._messages.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if first is None:
            await self._task
            raise RuntimeError("the app returned without a response")
        self.status, self.headers = first["status"], list(first.get("headers", []))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._send)
        await self._put(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Wakes the reader when the app has ended, after its earlier messages."""
        if task.cancelled() or task.exception() is not None:
            start_task(self._put(None), mark_retrieved)

    async def _receive(self) -> dict[str, Any]:
        if self._body is None or self._over.is_set():
            await self._over.wait()
            return {"type": "http.disconnect"}
        if self._whole is not None:
            self._body = None
            return {"type": "http.request", "body": self._whole, "more_body": False}
        try:
            return {"type": "http.request", "body": await anext(self._body), "more_body": True}
        except StopAsyncIteration:
            self._body = None
            return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        await self._put(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over.set()

    async def _put(self, message: dict[str, Any] | None) -> None:
        """Give a message to the reader, who may be slow; if the reader has left, the message is dropped, as by a server."""
        if self._left.is_set():
            return
        if not self._messages.full():
            self._messages.put_nowait(message)
            return
        await wait_for_first(self._messages.put(message), self._left.wait())

    def __aiter__(self) -> Self:  # no generator: httpx would leave it to the garbage collector
        return self

    async def __anext__(self) -> bytes:
        while self._more and (message := await self._messages.get()) is not None:
            self._more = message.get("more_body", False)
            if body := message.get("body", b""):
                return bytes(body)
        self._more = False
        await self._task
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Shows the app that the client left (or has all it wanted), and waits for the app to end."""
        self._left.set()
        self._over.set()
        await self._task


_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the end of a chunk may be half of a CRLF


class Event(NamedTuple):
    """One event: its name, and its parsed JSON data."""

    name: str
    data: Any


async def events(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """Yields the events of a response as they arrive, without comments and incomplete events.

    Raises:
        ValueError: data is not JSON.
    """
    name, data = "message", list[str]()
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data or name != "message":
                    text = "\n".join(data)
                    yield Event(name, await parse_if(len(text) >= LARGE, None, _loads, text) if data else None)
                name, data = "message", []
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)


async def _lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Splits lines at CRLF, LF or CR only: httpx splits at U+2028 and others too, which tokens may contain."""
    parts = list[bytes]()  # of a line that has not ended
    chunks: Any = response.aiter_bytes()  # an asynchronous generator
    async with aclosing(chunks):
        async for chunk in chunks:
            if parts and parts[-1].endswith(b"\r"):
                chunk = parts.pop() + chunk
            *lines, rest = _END.split(chunk)
            for line in lines:
                yield b"".join((*parts, line)).decode()
                parts.clear()
            parts.append(rest)
    if parts and parts[-1].endswith(b"\r"):
        yield b"".join(parts)[:-1].decode()


def _loads(text: str) -> Any:
    """Parses a large JSON text in pieces."""
    try:
        return loads(text.encode(), MAX_LEVELS)
    except InvalidRequest:
        return orjson.loads(text)  # which says what is wrong
