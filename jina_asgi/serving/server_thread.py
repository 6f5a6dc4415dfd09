"""A thread of this process that loads and serves one source until it is stopped."""

from __future__ import annotations

import asyncio
import atexit
import ssl
import threading
from contextlib import AsyncExitStack
from typing import Any, Protocol

from jina_asgi.clients.client import Client
from jina_asgi.clients.sync import SyncClient
from jina_asgi.concurrency.loops import loop_factory
from jina_asgi.errors import DefinitionError
from jina_asgi.serving.application import Application
from jina_asgi.serving.source import Source
from jina_asgi.settings import ServingSettings


class Waitable(Protocol):
    """An event that can be waited for: an Event of threading or of multiprocessing."""

    def wait(self) -> Any: ...


class ServingThread:
    """One thread that loads and serves a source; started and stopped once each.

    Raises:
        PortAlreadyUsed: the port is in use.
    """

    def __init__(self, source: Source, settings: ServingSettings, grace: float) -> None:
        self._source, self._settings, self._grace = source, settings, grace
        self._app = Application(source, settings.application)
        self._web = self._listening()
        self.ended = threading.Event()
        self._answers = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"jina-asgi-{source.name}", daemon=True)
        self._client: SyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._stopping, self._lock = threading.Event(), threading.Lock()

    @property
    def ports(self) -> list[int]:
        """The port of each protocol."""
        left = iter(() if self._web is None else self._web.ports)
        grpc = 0 if self._app.sidecar is None else self._app.sidecar.port or 0
        return [grpc if protocol == "grpc" else next(left) for protocol in self._settings.protocols]

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    @property
    def page(self) -> str | None:
        """The URL of the page, or without it that of the OpenAPI page: HTTP is served at every port except gRPC's, preferably
        at its own.
        """
        at = dict(zip(self._settings.protocols, self.ports, strict=True))
        port = at.get("http", at.get("websocket"))
        return None if port is None else self._url("http", port) + ("/-/" if self._settings.playground else "/docs")

    @property
    def urls(self) -> list[str]:
        """The URL of each protocol."""
        schemes = ["ws" if protocol == "websocket" else protocol for protocol in self._settings.protocols]
        return [self._url(scheme, port) for scheme, port in zip(schemes, self.ports, strict=True)]

    def _url(self, scheme: str, port: int) -> str:
        host = "127.0.0.1" if self._settings.address in ("0.0.0.0", "::") else self._settings.address  # noqa: S104  # compared
        bracketed = f"[{host}]" if ":" in host else host
        return f"{scheme}{'s' if self._settings.ssl_certfile else ''}://{bracketed}:{port}"

    @property
    def is_ready(self) -> bool:
        return self._answers.is_set() and not self.ended.is_set() and self._app.service.ready

    def start(self) -> None:
        """Return when it answers; raise the failure."""
        self._thread.start()
        try:
            self._answers.wait()
        except BaseException:  # a signal: loading is cancelled
            self.stop()
            raise
        if self.ended.is_set():
            self._thread.join()
            assert self._error is not None
            raise self._error
        atexit.register(self.stop)

    def wait(self, event: Waitable | None = None) -> None:
        """Return when it has ended, or `event` is set; raise its failure."""
        over = threading.Event() if event is not None else self.ended
        if event is not None:
            for waitable in (event, self.ended):
                threading.Thread(target=_then, args=(waitable, over), daemon=True).start()
        over.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it, and wait until its thread has ended."""
        atexit.unregister(self.stop)
        if self._client is not None:
            self._client.close()
        self._stopping.set()
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end)
        self._thread.join()

    def _end(self) -> None:
        """On the server's own loop: finish, or cancel loading."""
        if self._answers.is_set():
            self._over.set()
            if self._web is not None:
                self._web.end()
        elif self._task is not None:
            self._task.cancel()

    @property
    def client(self) -> SyncClient:
        """A Client of the server, shared by all callers."""
        if self._client is None:
            self._client = Client(self.urls[0], asyncio=False, **self._trust())
        return self._client

    def _listening(self) -> Any:
        """Uvicorn for HTTP and WebSockets, already listening; None if neither is served.

        Raises:
            DefinitionError: uvicorn is missing, or cannot be served with these settings.
        """
        spoken = zip(self._settings.protocols, self._settings.ports, strict=True)
        ports = [port for protocol, port in spoken if protocol != "grpc"]
        if not ports:
            return None
        try:
            from jina_asgi.serving.uvicorn_server import UvicornFront  # with uvicorn
        except ImportError as error:
            raise DefinitionError(f"serving needs uvicorn: pip install 'jina-asgi[gunicorn]' ({error})") from error
        return UvicornFront(self._app, self._settings, ports, self._grace)

    def _trust(self) -> dict[str, Any]:
        """The options with which a Client trusts this server's certificate, under any name."""
        certificate = self._settings.ssl_certfile
        if certificate is None:
            return {}
        context = _trusting(certificate)
        if self._settings.protocols[0] != "grpc":
            return {"verify": context}
        name = _name(context)
        return {
            "verify": certificate,
            "grpc_channel_options": {} if name is None else {"grpc.ssl_target_name_override": name},
        }

    def _run(self) -> None:
        try:
            factory = loop_factory() if self._web is None else self._web.loop_factory()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError:
            pass  # `stop` did this
        except SystemExit:  # uvicorn exits so, which would end the user's program
            self._error = RuntimeError(f"{self._source.name}: uvicorn ended before it answered; its log says why")
        except BaseException as error:  # noqa: BLE001  # raised where it was started
            self._error = error
        finally:
            if self._web is not None:
                self._web.close()
            self.ended.set()
            self._answers.set()

    async def _serve(self) -> None:
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if self._stopping.is_set():
                return
            async with AsyncExitStack() as lives:
                for life in (self._source.lifespan(), self._app.lifespan()):
                    await lives.enter_async_context(life)
                if self._web is not None:
                    await self._web.serve(self._answers.set)
                else:
                    self._answers.set()
                    await self._over.wait()
        finally:
            with self._lock:
                self._loop = None


def _then(event: Waitable, over: threading.Event) -> None:
    event.wait()
    over.set()


def _trusting(certificate: str) -> ssl.SSLContext:
    """Makes an SSL context that trusts the server with this certificate, under any name."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _name(context: ssl.SSLContext) -> str | None:
    """The server name in a self-signed certificate; None: it is not self-signed."""
    for certificate in context.get_ca_certs():
        names: Any = certificate.get("subjectAltName", ())
        subject: Any = certificate.get("subject", ())
        common = [value for part in subject for key, value in part if key == "commonName"]
        return next((str(value) for kind, value in names if kind == "DNS"), common[0] if common else None)
    return None
