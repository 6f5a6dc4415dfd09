"""A grpc.aio server at one address: opened before anything loads, drained and closed when its application ends.

It is opened in the serving process, on the serving loop: gRPC does not survive a fork. The code that
opened it can wait until it is lost, close it, and open it again.

Lists the sockets that this process listens on, as gRPC reports neither which are its own nor that one is closed.

The list is empty where the system does not show a process its open files.

Passes a Unix socket's path from one server to the next without a moment in which no server listens.

gRPC removes any file at a path before it listens there, and removes the path when it stops, even if another server listens
there by then: the new worker after a reload. So gRPC listens under a temporary name, which is moved to the path.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from jina_asgi.concurrency.tasks import mark_retrieved, start_task
from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.protocols.grpc.channels import forks_wait, opened
from jina_asgi.protocols.grpc.discovery import Health
from jina_asgi.protocols.grpc.services import SERVICES, MethodTable, Reflection, Services
from jina_asgi.protocols.service import Service
from jina_asgi.settings import GrpcSettings

#: A descriptor, and its socket's number: the descriptor alone may be reused.
Listening = frozenset[tuple[int, int]]


def listening(port: int | None = None) -> Listening:
    """The listening sockets of this process; with a port, those on it."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return frozenset()
    found = ((number, _socket_at(number, port)) for number in map(int, names))
    return frozenset((number, identity) for number, identity in found if identity is not None)


def listens(known: Listening) -> bool:
    """Whether all of these are still open, and listen."""
    return all(_socket_at(number) == identity for number, identity in known)


def _socket_at(number: int, port: int | None = None) -> int | None:
    """The socket of a descriptor; None: it does not listen on this port, or is not a socket."""
    try:
        found = os.fstat(number)
        if not stat.S_ISSOCK(found.st_mode):
            return None
        seen = socket.socket(fileno=number)
        try:
            wanted = port is None or seen.getsockname()[1] == port
            return found.st_ino if wanted and seen.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else None
        finally:
            seen.detach()
    except (OSError, IndexError):  # it was closed meanwhile; or is not an internet socket
        return None


class SocketPath:
    """The path of one server.

    Raises:
        DefinitionError: there is a file that is not a socket.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._own = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        self._made: tuple[int, int, int] | None = None
        found = _found(self._path)
        if found is not None and not stat.S_ISSOCK(found.st_mode):
            raise DefinitionError(
                f"cannot listen on unix:{path}: expected a socket there or nothing, found another file"
            )

    @property
    def target(self) -> str:
        """The address for gRPC."""
        return f"unix:{self._own}"

    def publish(self) -> None:
        """Move the listening socket to the path, in place of the server that listened there.

        Raises:
            DefinitionError: that is not allowed.
        """
        try:
            self._own.replace(self._path)
            self._made = _identity(self._path.lstat())
        except OSError as error:
            raise DefinitionError(f"cannot listen on unix:{self._path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the path, if it is still this server's."""
        found = _found(self._path)
        if found is not None and self._made == _identity(found):
            self._path.unlink()


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_mtime_ns  # the inode number of a removed file is soon reused


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


#: Allows the pings of Jina's clients (every 9.999 s, also without calls), and detects lost clients.
_OPTIONS = {
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 5_000,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.max_ping_strikes": 2,
    "grpc.max_send_message_length": -1,
    "grpc.max_metadata_size": 16_384,
}


class GrpcServer:
    """The services of one application, at one address.

    Args:
        settings: the address and other options.
        service: answers the calls.
        versions: those of this library and its dependencies.
    """

    def __init__(self, settings: GrpcSettings, service: Service, versions: Callable[[], Mapping[str, str]]) -> None:
        self._settings, self._service = settings, service
        self._services = Services(service, versions)
        self._health = Health(service, SERVICES)
        self._stop_following: Callable[[], None] | None = None
        self._server: grpc.aio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._path: SocketPath | None = None
        self._over: asyncio.Task[bool] | None = None
        self._sockets: Listening = frozenset()
        #: Its port; None for a Unix socket, and before it listens.
        self.port: int | None = None

    async def open(self, *, shares_port: bool = False, port: int | None = None) -> None:
        """Listen and serve; calls wait for loading.

        Args:
            shares_port: other workers of this server listen there too.
            port: its earlier port; None: the port of the settings.

        Raises:
            PortAlreadyUsed: the port is in use.
            DefinitionError: the address, a certificate or an option is invalid; gRPC cannot be used in this process.
        """
        settings = self._settings
        self._path = SocketPath(settings.where.path) if settings.where.path else None
        limits = {"grpc.max_receive_message_length": self._service.limits.body, "grpc.so_reuseport": int(shares_port)}
        compression = None if settings.compression is None else grpc.Compression[settings.compression]
        options = list({**_OPTIONS, **limits, **settings.options}.items())
        server = opened(lambda: grpc.aio.server(options=options, compression=compression))
        server.add_generic_rpc_handlers((MethodTable(self._handlers()),))
        before = listening()
        self.port = self._listen(server, port)
        self._sockets = listening(self.port) - before
        self._health.begin()
        self._server, self._loop, self._stopping = server, asyncio.get_running_loop(), None
        await server.start()
        self._over = start_task(server.wait_for_termination(), mark_retrieved)
        self._stop_following = self._service.on_drain(self._begin_drain)

    async def lost(self) -> str | None:
        """Wait until it ends or stops listening without `stop`; return the reason. None: it was stopped."""
        over = self._over
        while over is not None and self._stopping is None:
            await asyncio.wait([over], timeout=_LOOK)
            if self._stopping is None and over.done():
                return f"it failed: {error!r}" if (error := over.exception()) is not None else "it ended by itself"
            if self._stopping is None and not listens(self._sockets):
                return "its socket listens no more"
        return None

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        names = (*SERVICES, "grpc.health.v1.Health")
        reflection = Reflection(names, self._service).handlers() if self._settings.reflection else {}
        return {**self._services.handlers(), **self._health.handlers(), **reflection}

    def _listen(self, server: grpc.aio.Server, port: int | None) -> int | None:
        settings, where = self._settings, self._settings.where
        target = replace(where, port=port).target if port is not None else where.target
        target = target if self._path is None else self._path.target
        try:
            if settings.ssl_certfile is None:
                bound = server.add_insecure_port(target)
            else:
                bound = server.add_secure_port(target, _credentials(settings))
            if self._path is not None:
                self._path.publish()
        except RuntimeError as error:  # gRPC raises it for any cause, which is in its log
            if where.path:
                raise DefinitionError(f"cannot listen on {where.target}: {error}") from error
            raise PortAlreadyUsed(
                f"port {where.port} of {where.host} is in use, or that address is not of this machine; choose another"
            ) from error
        return None if where.path else int(bound)

    def _begin_drain(self) -> None:
        """Called from any thread when serving is about to end."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # that loop is closed, and this server with it
                loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """Accept no new requests; open ones are answered."""
        self._health.end()
        self._services.drain()
        if self._server is not None and self._stopping is None:
            self._stopping = start_task(self._server.stop(_LONG), mark_retrieved)

    async def close(self, grace: float) -> None:
        """Stop; calls that are open after `grace` seconds are cancelled. If this was cancelled, call it again."""
        server = self._server
        if server is None:
            return
        if self._stop_following is not None:
            self._stop_following()
        self._health.end()
        self._services.drain()
        await server.stop(grace)
        if self._stopping is not None:
            await self._stopping
        if self._path is not None:
            self._path.remove()
        if self._over is not None:
            await asyncio.wait([self._over])
            self._over.exception()  # `lost` has returned it
        with forks_wait():
            self._server = self._loop = self._over = server = None


_LONG = 3600.0  # seconds: `close` ends it earlier
_LOOK = 1.0  # seconds between looks: no event reports that a listening socket is closed; a look takes 3 microseconds


def _credentials(settings: GrpcSettings) -> Any:
    try:
        _check_certificates(settings)
        certificate, key = Path(settings.ssl_certfile or "").read_bytes(), Path(settings.ssl_keyfile or "").read_bytes()
        clients = None if settings.ssl_clients is None else Path(settings.ssl_clients).read_bytes()
        return opened(lambda: grpc.ssl_server_credentials(((key, certificate),), clients, clients is not None))
    except (OSError, ValueError) as error:
        raise DefinitionError(
            f"cannot serve with the files {', '.join(filter(None, _files(settings)))}: expected certificates in PEM, and"
            f" the first one's key without a password; {error}"
        ) from error


def _files(settings: GrpcSettings) -> tuple[str | None, ...]:
    return settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_clients


def _check_certificates(settings: GrpcSettings) -> None:
    """Loads the certificates as gRPC will: for an invalid file, or a wrong key, gRPC only reports that the port cannot be bound.

    Raises:
        OSError: a file cannot be read or is invalid, or the key has a password or is not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # gRPC decides on the length of keys
    context.load_cert_chain(settings.ssl_certfile or "", settings.ssl_keyfile, password="")
    if settings.ssl_clients is not None:
        context.load_verify_locations(settings.ssl_clients)
