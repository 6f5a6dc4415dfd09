"""A uvicorn in a thread of this process, which serves one source until it is told to stop."""

from __future__ import annotations

import asyncio
import atexit
import errno
import socket
import threading
from collections.abc import Callable

import uvicorn

from jina_asgi.application import Application
from jina_asgi.client import Client
from jina_asgi.clients.sync import SyncClient
from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.settings import ServingSettings
from jina_asgi.source import Source


class UvicornThread:
    """One uvicorn in a thread, with a source's life around it; started and stopped once each.

    Raises:
        PortAlreadyUsed: somebody else listens there.
    """

    def __init__(self, source: Source, settings: ServingSettings, grace: float) -> None:
        self._source, self._settings, self._grace = source, settings, grace
        self._app = Application(source, settings.application)
        self._socket = _listening(settings.address, settings.ports[0])
        self.port: int = self._socket.getsockname()[1]
        self.ended = threading.Event()
        self._answers = threading.Event()
        self._error: BaseException | None = None
        self._running: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name=f"jina-asgi-{source.name}", daemon=True)
        self._client: SyncClient | None = None

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self._settings.address in ("0.0.0.0", "::") else self._settings.address  # noqa: S104  # compared
        bracketed = f"[{host}]" if ":" in host else host
        return f"http{'s' if self._settings.ssl_certfile else ''}://{bracketed}:{self.port}"

    @property
    def is_ready(self) -> bool:
        return self._answers.is_set() and not self.ended.is_set() and self._app.home.ready

    def start(self) -> None:
        """Return once it answers; raise what kept it from that."""
        self._thread.start()
        try:
            self._answers.wait()
        except BaseException:
            self.stop()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error
        atexit.register(self.stop)

    def stop(self) -> None:
        """End it, and wait until nothing of it is left."""
        atexit.unregister(self.stop)
        if self._client is not None:
            self._client.close()
        if self._running is not None:
            self._running.should_exit = True
        self._thread.join()

    @property
    def client(self) -> SyncClient:
        """A Client of it; one for all who ask."""
        if self._client is None:
            verify = self._settings.ssl_certfile or True
            self._client = Client(self.url, verify=verify, asyncio=False)
        return self._client

    def _run(self) -> None:
        try:
            config = self._config()
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(self._serve(config))
        except BaseException as error:  # noqa: BLE001  # raised where it was started
            self._error = error
        finally:
            self._socket.close()
            self.ended.set()
            self._answers.set()

    async def _serve(self, config: uvicorn.Config) -> None:
        async with self._source.lifespan():
            self._running = _Server(config, self._answers.set)
            await self._running.serve(sockets=[self._socket])

    def _config(self) -> uvicorn.Config:
        settings = self._settings
        options = {
            "lifespan": "on",
            "log_level": "warning",
            "timeout_graceful_shutdown": max(1, round(self._grace)),
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
            **settings.uvicorn_kwargs,
        }
        return uvicorn.Config(self._app, **options)


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, answers: Callable[[], None]) -> None:
        super().__init__(config)
        self._answers = answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._answers()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortAlreadyUsed(f"port {port} of {host} is in use; choose another, or none for a free one") from error
        raise DefinitionError(f"cannot listen on {host}:{port}: {error.strerror}") from error
