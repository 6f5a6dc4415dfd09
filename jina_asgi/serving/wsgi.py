"""WSGI: an ASGI application for servers that give each request a thread and call `app(environ, start_response)`.

The application runs unchanged on the event loop of this process's own thread; this module connects it with the server's
thread. Its messages wait in a window for the server, whose thread reads the request's body when the application asks.
A write fails when the client has left: the server then closes the iterator, and the application gets a disconnect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any, Self
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import is_hop_by_hop

import orjson
from starlette.types import ASGIApp, Message, Scope

from jina_asgi.concurrency.loops import loop_thread
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.problems import problem

logger = logging.getLogger("jina_asgi")

_OWN_KEYS = ("CONTENT_TYPE", "CONTENT_LENGTH")
_PART = 65_536  # bytes of a body that are read at once
_WINDOW = 65_536  # bytes by which the application may be ahead of the server; it continues at half of that


class LengthRequired(InvalidRequest):
    """The end of a body is not known to this server."""

    status = 411


class WsgiApp:
    """`app` as a WSGI application. It streams, and has no WebSocket.

    Args:
        app: any ASGI application; it gets no lifespan.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            scope, size = scope_of(environ), body_size(environ)
        except InvalidRequest as error:
            return _refused(error, start_response)
        return _WsgiExchange(scope, environ["wsgi.input"], size).begin(self._app, start_response)


class _End:
    """The application has returned, or raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _WsgiExchange:
    """One request and its answer: `receive` and `send` for the application, an iterator of the body for the server."""

    def __init__(self, scope: Scope, body: Any, size: int | None) -> None:
        self._scope, self._input, self._size = scope, body, size
        self._thread = loop_thread("loop")
        self._said: SimpleQueue[Message | _End | None] = SimpleQueue()  # None: a part of the body, please
        self._over = False
        self._taken = 0  # written by the server's thread alone, as `_over` is; the rest by the loop
        self._sent = 0
        self._full, self._room = False, asyncio.Event()
        self._part: asyncio.Future[Message] | None = None
        self._whole = False
        self._gone = asyncio.Event()

    # The server's thread.

    def begin(self, app: ASGIApp, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application until its answer begins."""
        if self._thread.is_here:
            raise RuntimeError("a WSGI application was called on the very loop that answers for it; use another thread")
        self._thread.begin(self._run(app))
        try:
            head = self._next()
            headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in head.get("headers", ())]
            start_response(_status(head["status"]), [pair for pair in headers if not is_hop_by_hop(pair[0])])
        except BaseException:
            self.close()
            raise
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        while not self._over:
            message = self._next()
            body: bytes = message.get("body", b"")
            self._over = not message.get("more_body", False)
            self._taken += len(body)
            if self._full and self._sent - self._taken <= _WINDOW // 2:
                self._call_soon(self._room.set)
            if body and self._scope["method"] != "HEAD":
                return body
        raise StopIteration

    def close(self) -> None:
        """The server stops reading: the application gets a disconnect."""
        if not self._over:
            self._over = True
            self._call_soon(self._leave)

    def _next(self) -> Message:
        """The application's next message; meanwhile reads the body for the application.

        Raises:
            The application's error before its answer.
        """
        while (said := self._said.get()) is None:
            self._call_soon(self._arrive, self._read())
        if isinstance(said, _End):
            self._over = True
            raise said.error or RuntimeError("the application returned without a whole response")
        return said

    def _read(self) -> Message:
        part: bytes = self._input.read(_PART if self._size is None else min(self._size, _PART))
        if self._size is None:
            return {"type": "http.request", "body": part, "more_body": bool(part)}
        if not part:
            return {"type": "http.disconnect"}
        self._size -= len(part)
        return {"type": "http.request", "body": part, "more_body": self._size > 0}

    def _call_soon(self, what: Any, *about: Any) -> None:
        self._thread.loop.call_soon_threadsafe(what, *about)

    # The loop.

    async def _run(self, app: ASGIApp) -> None:
        error: BaseException | None = None
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as raised:  # the server's thread raises it
            error = raised
            if self._gone.is_set() and not isinstance(error, OSError):
                logger.exception("an application failed after its answer")
        finally:
            self._said.put(_End(error))

    async def _receive(self) -> Message:
        if self._whole or self._gone.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if self._size == 0:
            self._whole = True
            return {"type": "http.request", "body": b"", "more_body": False}
        self._part = asyncio.get_running_loop().create_future()
        self._said.put(None)
        message = await self._part
        self._whole = not message.get("more_body", False)
        return message

    async def _send(self, message: Message) -> None:
        if not self._gone.is_set():
            self._sent += len(message.get("body", b""))
            self._said.put(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._gone.set()
                return
            if self._sent - self._taken > _WINDOW:
                self._room.clear()
                self._full = True
                if self._sent - self._taken > _WINDOW:  # again: from here the other thread sees that this one waits
                    await self._room.wait()
                self._full = False
        if self._gone.is_set():
            raise BrokenPipeError("the client left")

    def _arrive(self, message: Message) -> None:
        if self._part is not None and not self._part.done():
            self._part.set_result(message)

    def _leave(self) -> None:
        self._gone.set()
        self._room.set()
        self._arrive({"type": "http.disconnect"})


def scope_of(environ: WSGIEnvironment) -> dict[str, Any]:
    """The ASGI scope of a request.

    Raises:
        InvalidRequest: it asks for a WebSocket.
    """
    if environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_UPGRADE", "").lower() == "websocket":
        raise InvalidRequest(
            "this server speaks WSGI, which has no WebSocket: expected a streaming endpoint over HTTP, or an ASGI server"
        )
    root = _text(environ.get("SCRIPT_NAME", "")).rstrip("/")
    port, server_port = environ.get("REMOTE_PORT", ""), environ.get("SERVER_PORT", "")
    client = environ.get("REMOTE_ADDR")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.0").rpartition("/")[2],
        "method": environ["REQUEST_METHOD"],
        "headers": _headers(environ),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": root + _text(environ.get("PATH_INFO", "")),
        "root_path": root,
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "server": (environ["SERVER_NAME"], int(server_port) if server_port.isdigit() else None),
        "client": (client, int(port) if port.isdigit() else 0) if client else None,
        "state": {},
        "extensions": {"jina_asgi.wsgi": {}},
    }
    user = environ.get("REMOTE_USER")  # set by the host's own authentication; no header can set it
    return {**scope, "user": user} if user else scope


def body_size(environ: WSGIEnvironment) -> int | None:
    """The size of a request's body; None if its end is marked (chunked).

    Raises:
        LengthRequired: it is chunked, and this server does not mark its end.
    """
    declared = environ.get("CONTENT_LENGTH")
    if declared:
        return int(declared) if declared.isdigit() else 0  # an invalid number is refused when headers are read
    if environ.get("wsgi.input_terminated"):
        return None
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        raise LengthRequired("expected content-length: this server cannot read a chunked body")
    return 0


def _headers(environ: WSGIEnvironment) -> list[tuple[bytes, bytes]]:
    found = []
    for key, value in environ.items():
        name = key[5:] if key.startswith("HTTP_") else ""
        if key in _OWN_KEYS:
            name = key if value else ""
        elif name in _OWN_KEYS:  # some servers have these twice
            name = ""
        if name:
            found.append((name.lower().replace("_", "-").encode("latin-1"), value.encode("latin-1")))
    return found


def _text(path: str) -> str:
    """Decodes a WSGI path, in which each byte is one character."""
    return path.encode("latin-1").decode("utf-8", "replace")


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} Unknown"


def _refused(error: InvalidRequest, start_response: StartResponse) -> Iterable[bytes]:
    status, body, headers = problem(error)
    raw = orjson.dumps(body)
    head = [("content-type", "application/json"), ("content-length", str(len(raw)))]
    start_response(_status(status), [*head, *((key.decode(), value.decode()) for key, value in headers)])
    return [raw]
