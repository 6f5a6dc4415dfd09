"""A uvicorn in a thread of this process, which serves one source until it is told to stop."""

from __future__ import annotations

import asyncio
import atexit
import errno
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import uvicorn

from jina_asgi.application import Application
from jina_asgi.client import Client
from jina_asgi.clients.sync import SyncClient
from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.settings import ServingSettings
from jina_asgi.source import Source


class Waitable(Protocol):
    """What may be waited for beside the server's own end: an Event of threading or of multiprocessing."""

    def wait(self) -> Any: ...


class UvicornThread:
    """One uvicorn in a thread, with a source's life around it; started and stopped once each.

    Raises:
        PortAlreadyUsed: somebody else listens there.
    """

    def __init__(self, source: Source, settings: ServingSettings, grace: float) -> None:
        self._source, self._settings, self._grace = source, settings, grace
        self._app = Application(source, settings.application)
        self._sockets = _listening(settings.address, settings.ports)
        #: One for each protocol; the same application answers at all of them.
        self.ports: list[int] = [listening.getsockname()[1] for listening in self._sockets]
        self.ended = threading.Event()
        self._answers = threading.Event()
        self._error: BaseException | None = None
        self._running: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name=f"jina-asgi-{source.name}", daemon=True)
        self._client: SyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping, self._lock = threading.Event(), threading.Lock()

    @property
    def port(self) -> int:
        """The first."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """Where HTTP is answered: it is at every port, and expected at its own."""
        spoken = self._settings.protocols
        return self._url("http", self.ports[spoken.index("http") if "http" in spoken else 0])

    @property
    def urls(self) -> list[str]:
        """Where each protocol is spoken."""
        schemes = ["ws" if protocol == "websocket" else "http" for protocol in self._settings.protocols]
        return [self._url(scheme, port) for scheme, port in zip(schemes, self.ports, strict=True)]

    def _url(self, scheme: str, port: int) -> str:
        host = "127.0.0.1" if self._settings.address in ("0.0.0.0", "::") else self._settings.address  # noqa: S104  # compared
        bracketed = f"[{host}]" if ":" in host else host
        return f"{scheme}{'s' if self._settings.ssl_certfile else ''}://{bracketed}:{port}"

    @property
    def is_ready(self) -> bool:
        return self._answers.is_set() and not self.ended.is_set() and self._app.home.ready

    def start(self) -> None:
        """Return once it answers; raise what kept it from that."""
        self._thread.start()
        try:
            self._answers.wait()
        except BaseException:  # a signal: what loads is given up
            self.stop()
            raise
        if self.ended.is_set():
            self._thread.join()
            assert self._error is not None
            raise self._error
        atexit.register(self.stop)

    def wait(self, event: Waitable | None = None) -> None:
        """Return once it has ended, or `event` is set; raise what ended it."""
        over = threading.Event() if event is not None else self.ended
        if event is not None:
            for waitable in (event, self.ended):
                threading.Thread(target=_then, args=(waitable, over), daemon=True).start()
        over.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it, and wait until nothing of it is left."""
        atexit.unregister(self.stop)
        if self._client is not None:
            self._client.close()
        self._stopping.set()
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end)
        self._thread.join()

    def _end(self) -> None:
        """On the server's own loop: let uvicorn finish, or give up what is still loading."""
        if self._answers.is_set() and self._running is not None:
            self._running.should_exit = True
        elif self._task is not None:
            self._task.cancel()

    @property
    def client(self) -> SyncClient:
        """A Client of it; one for all who ask."""
        if self._client is None:
            certificate = self._settings.ssl_certfile
            verify = True if certificate is None else _trusting(certificate)
            self._client = Client(self.urls[0], verify=verify, asyncio=False)
        return self._client

    def _run(self) -> None:
        try:
            config = self._config()
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(self._serve(config))
        except asyncio.CancelledError:
            pass  # `stop` did this
        except SystemExit:  # uvicorn's own way to say it, which would end a program that is not its own
            self._error = RuntimeError(f"{self._source.name}: uvicorn ended before it answered; its log says why")
        except BaseException as error:  # noqa: BLE001  # raised where it was started
            self._error = error
        finally:
            for listening in self._sockets:
                listening.close()
            self.ended.set()
            self._answers.set()

    async def _serve(self, config: uvicorn.Config) -> None:
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if self._stopping.is_set():
                return
            async with self._source.lifespan():
                self._running = _Server(config, self._answers.set)
                await self._running.serve(sockets=self._sockets)
        finally:
            with self._lock:
                self._loop = None

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
        try:
            config = uvicorn.Config(self._app, **options)
        except TypeError as error:
            raise DefinitionError(f"uvicorn_kwargs={settings.uvicorn_kwargs}: {error}") from error
        try:
            config.load()
        except (OSError, ValueError) as error:  # of a certificate
            files = f"{settings.ssl_certfile}, {settings.ssl_keyfile}"
            raise DefinitionError(f"cannot serve with the certificate and key {files}: {error}") from error
        return config


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, answers: Callable[[], None]) -> None:
        super().__init__(config)
        self._answers = answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._answers()


def _then(event: Waitable, over: threading.Event) -> None:
    event.wait()
    over.set()


def _trusting(certificate: str) -> ssl.SSLContext:
    """Trusts the one server that has this certificate, whatever the certificate calls it."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _listening(host: str, ports: Sequence[int]) -> list[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as opened:
        found = list[socket.socket]()
        for port in ports:
            try:
                listening = socket.create_server((host, port), family=family, backlog=2048)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortAlreadyUsed(
                        f"port {port} of {host} is in use; choose another, or none for a free one"
                    ) from error
                raise DefinitionError(f"cannot listen on {host}:{port}: {error.strerror}") from error
            found.append(opened.enter_context(listening))
        opened.pop_all()
    return found
