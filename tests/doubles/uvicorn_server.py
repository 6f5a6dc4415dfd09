"""A real uvicorn on a free port, in this process: on the running loop, or in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Self

import uvicorn


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def bound(port: int = 0) -> socket.socket:
    """A socket on a port of its own, or on one that was freed a moment ago."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def free_port() -> int:
    """A port that nobody listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """As many, each another: one that was found and let go may be found again."""
    with ExitStack() as open_ones:
        return [open_ones.enter_context(bound()).getsockname()[1] for _ in range(count)]


@asynccontextmanager
async def serving(app: Any, *, port: int = 0, lifespan: str = "off", **options: Any) -> AsyncIterator[int]:
    """Serve on this loop; gives the port. `options` are uvicorn's."""
    sock = bound(port)
    server = _Server(uvicorn.Config(app, lifespan=lifespan, log_level="warning", **options))  # type: ignore[arg-type]
    task = asyncio.create_task(server.serve([sock]))
    try:
        up = asyncio.create_task(server.up.wait())
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if task.done():
            raise RuntimeError("the server did not start")
        yield int(sock.getsockname()[1])
    finally:
        server.should_exit = True
        await task


class Serving:
    """Serve from a thread, with the app's lifespan; used as `with`, by tests whose own thread blocks."""

    def __init__(self, app: Any, *, port: int = 0) -> None:
        self._app, self.port = app, port
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(30), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self._app, port=self.port, lifespan="on") as self.port:
            self._up.set()
            await self._over.wait()
