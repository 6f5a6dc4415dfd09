"""A WebSocket to an ASGI app without sockets: messages arrive while the app still runs.

Leaving shows the app that its client left, and waits for the app to end. A reader that does not read blocks the app,
as over a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp

from jina_asgi.concurrency.tasks import mark_retrieved, start_task, wait_for_first
from jina_asgi.types import EMPTY

_WINDOW = 16  # messages by which an app may be ahead of its reader


class SocketRefused(Exception):
    """The app refused the handshake.

    Attributes:
        status: that of the HTTP response; 403 without one.
        body: that of the response; empty without one.
        code: the app's close code instead of a response, which servers do not send.
    """

    def __init__(self, status: int, body: bytes = b"", code: int | None = None) -> None:
        super().__init__(f"the handshake was refused: {status} {body.decode('utf-8', 'replace')[:200]}")
        self.status, self.body, self.code = status, body, code


class SocketClosed(Exception):
    """The app closed the socket."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the socket was closed: {code} {reason}")
        self.code, self.reason = code, reason


class InProcessSocket:
    """A client's end of one socket.

    Attributes:
        subprotocol: the app's choice among those offered.
    """

    def __init__(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        self.subprotocol: str | None = None
        self._app, self._scope = app, scope
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WINDOW)
        self._left = asyncio.Event()
        self._last: dict[str, Any] | None = None  # for later calls of `receive`

    async def send(self, value: Any) -> None:
        """Send a value as JSON."""
        self.send_raw(orjson.dumps(value).decode())

    def send_raw(self, message: str | bytes) -> None:
        """Send a text message, or a binary one."""
        kind = "text" if isinstance(message, str) else "bytes"
        self._to_app.put_nowait({"type": "websocket.receive", kind: message})

    async def receive(self) -> Any:
        """The next message, as JSON.

        Raises:
            SocketClosed: there are no more messages.
        """
        return orjson.loads(await self.receive_raw())

    async def receive_raw(self) -> str | bytes:
        """The next message, not parsed; raises as `receive`."""
        message = self._last or await self._from_app.get()
        if message["type"] == "websocket.send":
            text = message.get("text")
            raw: str | bytes = message["bytes"] if text is None else text
            return raw
        self._last = message
        if message["type"] == "ended":
            await self._task
        raise SocketClosed(message.get("code") or 1000, message.get("reason") or "")

    async def open(self) -> None:
        """Shake hands.

        Raises:
            SocketRefused: the app refused it.
        """
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._task = start_task(self._run(), self._over)
        try:
            answer = await self._from_app.get()
        except BaseException:
            await self.close()
            raise
        if answer["type"] == "websocket.accept":
            self.subprotocol = answer.get("subprotocol")
        elif answer["type"] == "websocket.close":
            raise SocketRefused(403, code=answer.get("code", 1000))
        elif answer["type"] == "websocket.http.response.start":
            raise SocketRefused(answer["status"], (await self._from_app.get()).get("body", b""))
        else:
            await self._task
            raise RuntimeError("the app returned without an answer to the handshake")

    async def close(self, code: int = 1000) -> None:
        """Disconnect, and wait for the app to end."""
        self._left.set()
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})
        try:
            await self._task
        finally:
            while not self._from_app.empty():
                self._from_app.get_nowait()
            self._from_app.put_nowait({"type": "ended", "code": code})  # for a `receive` that still waits

    async def _run(self) -> None:
        await self._app(self._scope, self._to_app.get, self._send)
        await self._put({"type": "ended", "code": 1006})

    def _over(self, task: asyncio.Task[None]) -> None:
        """Wakes the reader when the app has failed, after what the app sent before has been read."""
        if task.cancelled() or task.exception() is not None:
            start_task(self._put({"type": "ended", "code": 1006}), mark_retrieved)

    async def _send(self, message: Any) -> None:
        if self._left.is_set():
            raise OSError("the client left")
        await self._put(message)
        if message["type"] == "websocket.close":
            self._to_app.put_nowait({"type": "websocket.disconnect", "code": message.get("code", 1000)})

    async def _put(self, message: dict[str, Any]) -> None:
        """Give a message to the reader, who may be slow; if the reader has left, the message is dropped, as by a server."""
        if not self._from_app.full() or self._left.is_set():
            if not self._left.is_set():
                self._from_app.put_nowait(message)
            return
        await wait_for_first(self._from_app.put(message), self._left.wait())


@asynccontextmanager
async def connected(
    app: ASGIApp,
    url: str,
    *,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    root_path: str = "",
    state: Mapping[str, Any] | None = None,
    denial: bool = True,
) -> AsyncIterator[InProcessSocket]:
    """Opens a socket to an app.

    Args:
        app: any ASGI application.
        url: its path, or a whole URL.
        headers: those of the handshake, without `host`.
        subprotocols: those offered.
        root_path: the app's prefix; it is part of `path`, as with servers.
        state: the `scope["state"]` of the app's lifespan.
        denial: whether the app can refuse with an HTTP response, which not every server supports.

    Raises:
        SocketRefused: the app refused the handshake.
    """
    given = list(headers.items() if isinstance(headers, Mapping) else headers)
    scope = socket_scope(url, given, subprotocols, root_path, state or {}, denial=denial)
    socket = InProcessSocket(app, scope)
    await socket.open()
    try:
        yield socket
    finally:
        await socket.close()


def socket_scope(
    url: str,
    headers: list[tuple[str, str]],
    subprotocols: Sequence[str] = (),
    root_path: str = "",
    state: Mapping[str, Any] = EMPTY,
    *,
    denial: bool = True,
) -> dict[str, Any]:
    """The ASGI scope of a handshake; arguments as in `connected`."""
    parts = urlsplit(url)
    if all(name.lower() != "host" for name, _ in headers):
        headers = [("host", parts.netloc or "test"), *headers]
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if parts.scheme in ("wss", "https") else "ws",
        "path": root_path + parts.path,
        "raw_path": (root_path + parts.path).encode(),
        "query_string": parts.query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "subprotocols": list(subprotocols),
        "server": (parts.hostname or "test", parts.port or 80),
        "client": ("testclient", 50000),
        "root_path": root_path,
        "state": dict(state),
        "extensions": {"websocket.http.response": {}} if denial else {},
    }
