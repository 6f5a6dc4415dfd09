"""Accepts connections to the pool host: reads each one's request, and hands it to the server of that version of the Deployment."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

from jina_asgi.concurrency.lifecycle import CLOSING
from jina_asgi.concurrency.tasks import concurrent_tasks
from jina_asgi.errors import ExecutorError, JinaASGIError, ProtocolError
from jina_asgi.errors._raised import error_text, loggable
from jina_asgi.errors._shown import class_name
from jina_asgi.errors.load_failure import LoadFailure
from jina_asgi.processes.handshake import HostRequest, read_host_request
from jina_asgi.processes.shared_memory import OwnerSharing
from jina_asgi.protocols.frames.server import HELLO_LIMIT, FrameServer, Refusal
from jina_asgi.runners.wrappers import ObserveRunner, Wrapper
from jina_asgi.serving.assembly import assemble_pool
from jina_asgi.settings import DeploymentSettings

logger = logging.getLogger("jina_asgi")


def as_library_error(error: Exception) -> JinaASGIError:
    """Converts any error to one of this library that can be sent to a worker; logs it if it was unexpected."""
    if isinstance(error, JinaASGIError):
        return error
    logger.error("the pool host failed", exc_info=loggable(error))
    return ExecutorError(error_text(error), raised=class_name(error))


#: Measures a Runner within a block: its Deployment's name, the Runner, and the kind of this process.
Measured = Callable[[str, Wrapper, str], AbstractContextManager[None]]


class DeploymentVersion:
    """One version of a Deployment, by its code and options; lives as long as a worker uses it."""

    def __init__(self, request: HostRequest, measured: Measured) -> None:
        assert request.uses is not None
        self.ask, self.settings = request, DeploymentSettings.of(request.options)
        self.name, self.uses = self.settings.name, request.uses
        self.runner: ObserveRunner = assemble_pool(
            request.uses, self.settings, request.path, changed=self.report_health, costs=False
        )
        self.users, self._measured = 0, measured
        self.connections: set[FrameServer] = set()
        self.superseded = False
        #: The version before this one, while this one has not loaded.
        self.older: DeploymentVersion | None = None
        self.failure: JinaASGIError | None = None
        self._load_failure: LoadFailure | None = None
        self.ready = asyncio.Event()  # set when it has loaded, or failed to
        self.unused = asyncio.Event()
        self._ending = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def live(self) -> None:
        """Loads, serves until `end` is called, and unloads. If `end` is called while it loads, loading is cancelled."""
        living = self._living = asyncio.current_task()
        assert living is not None
        limit: asyncio.TimerHandle | None = None
        if self._ending.is_set():
            return
        try:
            async with self.runner.lifespan():
                self.ready.set()
                with self._measured(self.name, self.runner, "host"):
                    await self._ending.wait()
                # Each part of the shutdown has a limit of its own; this is the limit of the whole.
                limit = asyncio.get_running_loop().call_later(self.settings.grace + CLOSING, living.cancel)
        except Exception as error:  # noqa: BLE001  # loading may raise anything; it is logged, and sent to the workers that wait
            self.failure = as_library_error(error)
            self._load_failure = LoadFailure.logged(self.failure, f"{self.name} could not be loaded")
        finally:
            self.ready.set()
            if limit is not None:
                limit.cancel()

    def end(self) -> None:
        self._ending.set()
        if self._living is not None and not self.ready.is_set():
            self._living.cancel()

    @property
    def works(self) -> bool:
        """Whether it has loaded, and `end` was not called."""
        return self.ready.is_set() and self.failure is None and not self._ending.is_set()

    def report_health(self) -> None:
        """Reports to every connected worker whether calls can be answered."""
        unhealthy_reason = self.runner.unhealthy_reason()
        for connection in self.connections:
            connection.report_health(unhealthy_reason)

    def status(self) -> dict[str, Any]:
        failure = None if self._load_failure is None else self._load_failure.status()
        return {"uses": str(self.uses), "users": self.users, "failure": failure, **self.runner.status()}


_REQUEST_TIMEOUT = 10.0  # seconds in which a connection must send its request
_PEER = struct.Struct("3i")  # pid, uid, gid


class AcceptedConnection(asyncio.Protocol):
    """A connection whose request has not been read yet.

    `welcome` is called with a request to serve a Deployment; a status request is answered with `status()`.
    """

    def __init__(
        self, welcome: Callable[[AcceptedConnection, HostRequest], None], status: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._welcome, self._status, self._buffer = welcome, status, b""
        self._loop = asyncio.get_running_loop()
        self._has_request = False
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(_REQUEST_TIMEOUT, self._transport.abort)
        peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(peer)
        if uid != os.geteuid():
            logger.warning("user %d may not use this pool", uid)
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._has_request:  # its first frames, kept for its server
            if len(self._buffer) > HELLO_LIMIT:
                self._transport.abort()
            return
        try:
            found = read_host_request(self._buffer)
        except ProtocolError as error:
            logger.warning("a connection to the pool host ends: %s", error)
            self._transport.abort()
            return
        if found is not None:
            self._has_request = True
            request, self._buffer = found
            self._timer.cancel()
            if request.ask == "status":
                self._transport.write(json.dumps(self._status(), default=str).encode())
                self._transport.close()
            else:
                self._welcome(self, request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.gone.set()

    async def hand_over(self, version: DeploymentVersion, *, until: DeploymentVersion | None = None) -> None:
        """Serves a Deployment on this connection until it ends; or until the version `until` has loaded.

        A connection that has ended meanwhile is not served: nothing would report its end.
        """
        if self.gone.is_set():
            return
        server = FrameServer(version.runner, sharing=OwnerSharing(), metrics=version.runner.status)
        version.connections.add(server)
        turning = () if until is None else (_drain_when_ready(server, until, version.settings.grace),)
        try:
            async with concurrent_tasks(*turning):
                await self._serve(server)
        finally:
            version.connections.discard(server)

    def close(self) -> None:
        """Closes this connection, if it is open."""
        self._transport.abort()

    async def refuse(self, error: JinaASGIError) -> None:
        """Sends the error in place of a hello."""
        if not self.gone.is_set():
            await self._serve(Refusal(error))

    async def _serve(self, server: FrameServer) -> None:
        self._transport.set_protocol(server)
        server.connection_made(self._transport)
        if self._buffer:
            server.data_received(self._buffer)
        await server.closed.wait()  # cancelled calls may take longer: they do not delay the end


async def _drain_when_ready(server: FrameServer, to: DeploymentVersion, grace: float) -> None:
    """Drains a connection once another version works, so that its worker connects to that one."""
    await to.ready.wait()
    if to.works:
        await server.drain(grace)
