"""An httpx client, or a WebSocket, for an ASGI app: no sockets, real streaming, and the app's lifespan runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp

from jina_asgi.concurrency.tasks import cancel_and_wait, mark_retrieved, start_task
from jina_asgi.protocols.http.asgi_transport import ASGITransport
from jina_asgi.protocols.websocket.asgi_transport import InProcessSocket, connected


@asynccontextmanager
async def client(
    app: ASGIApp, *, base_url: str = "http://test", root_path: str = "", **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """An `httpx.AsyncClient` for an app: no sockets, real streaming, and the app's lifespan runs.

    Args:
        app: any ASGI application: a JinaASGI, or a host that one is mounted in.
        base_url: what relative URLs are relative to.
        root_path: the app's prefix; URLs are below it.
        options: further ones of `httpx.AsyncClient`.

    Raises:
        RuntimeError: the app's startup or shutdown failed; the message is the app's.
    """
    async with _lifespan(app) as state:
        transport = ASGITransport(app, root_path=root_path, state=state)
        async with httpx.AsyncClient(transport=transport, base_url=base_url, **options) as http:
            yield http


@asynccontextmanager
async def websocket(
    app: ASGIApp,
    path: str = "/-/ws",
    *,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    root_path: str = "",
    denial: bool = True,
) -> AsyncIterator[InProcessSocket]:
    """A WebSocket to an app: `await socket.send({...})` and `await socket.receive()` speak JSON; no sockets.

    The app's lifespan is run around it. Leaving shows the app that its client left, and waits for the app to end.

    Args:
        app: any ASGI application: a JinaASGI, or a host that one is mounted in.
        path: where the app has its WebSocket: "/lm/-/ws" where it is mounted at "/lm".
        headers, subprotocols: those of the handshake.
        root_path: the app's prefix.
        denial: whether the app can refuse with an HTTP response, which not every server supports.

    Raises:
        SocketRefused: the app refused the handshake; `status` and `body` are its answer.
        RuntimeError: the app's startup or shutdown failed; the message is the app's.
    """
    async with (
        _lifespan(app) as state,
        connected(
            app,
            path,
            headers=headers,
            subprotocols=subprotocols,
            root_path=root_path,
            state=state,
            denial=denial,
        ) as socket,
    ):
        yield socket


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Runs an app's lifespan, if it has one; an app that raises or returns before its first message has none."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    state: dict[str, Any] = {}

    async def send(message: Any) -> None:
        from_app.put_nowait(message)

    async def run() -> None:
        try:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, to_app.get, send)
        finally:
            from_app.put_nowait({"type": "ended"})

    async def phase(name: str) -> bool:
        to_app.put_nowait({"type": f"lifespan.{name}"})
        message = await from_app.get()
        if message["type"] == f"lifespan.{name}.complete":
            return True
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if name == "startup" and message["type"] == "ended":
            return False
        cause = outcome if isinstance(outcome, BaseException) else None
        raise RuntimeError(f"{name} failed: {message.get('message') or repr(outcome)}") from cause

    task = start_task(run(), mark_retrieved)
    try:
        lives = await phase("startup")
        try:
            yield state
        finally:
            if lives:
                await phase("shutdown")
                await task
    finally:
        await cancel_and_wait([task])
