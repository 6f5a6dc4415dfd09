"""Uvicorn for a thread: it listens before anything loads, and reports when it answers."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.serving.lifecycle import shutdown_begins
from jina_asgi.settings import ServingSettings


def released(protocol: Any) -> Any:
    """Derives a class from one of uvicorn's HTTP protocols, whose timer ends with its connection.

    After a reset, uvicorn's own timer goes on for the keep-alive time: 75 s under gunicorn, in which 10,000 connections
    hold 32 MB.
    """

    class Released(protocol):  # type: ignore[misc]  # which library it is of depends on what is installed
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unset_keepalive_if_required()

    return Released


class UvicornFront:
    """One uvicorn on some ports; used once.

    Raises:
        PortAlreadyUsed: the port is in use. DefinitionError: it cannot be served with these settings.
    """

    def __init__(self, app: Any, settings: ServingSettings, ports: Sequence[int], grace: float) -> None:
        self._app, self._settings, self._grace = app, settings, grace
        self._sockets = _listening(settings.address, ports)
        #: The application is the same at all of them.
        self.ports: list[int] = [listening.getsockname()[1] for listening in self._sockets]
        self._made: uvicorn.Config | None = None
        self._running: uvicorn.Server | None = None

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """The factory of uvicorn's event loop.

        Raises:
            DefinitionError: the settings are invalid.
        """
        self._made = self._config()
        return self._made.get_loop_factory()

    async def serve(self, answers: Callable[[], None]) -> None:
        """Serve until `end`; calls `answers` once it listens."""
        assert self._made is not None
        self._running = _NotifyingServer(self._made, answers)
        await self._running.serve(sockets=self._sockets)

    def end(self) -> None:
        """Finish open requests, and stop."""
        if self._running is not None:
            self._running.should_exit = True

    def close(self) -> None:
        """Stop listening."""
        for listening in self._sockets:
            listening.close()

    def _config(self) -> uvicorn.Config:
        settings = self._settings
        options = {
            "lifespan": "off",
            "log_level": "warning",
            "timeout_graceful_shutdown": max(1, round(self._grace)),
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
            "http": released(AutoHTTPProtocol),
            "ws_per_message_deflate": False,  # which would hold the event loop: 23 ms for each MB
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


class _NotifyingServer(uvicorn.Server):
    """Calls `answers` when it answers, and ends answers that never end by themselves when it stops."""

    def __init__(self, config: uvicorn.Config, answers: Callable[[], None]) -> None:
        super().__init__(config)
        self._answers = answers

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        shutdown_begins()
        await super().shutdown(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._answers()


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
