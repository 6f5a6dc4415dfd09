"""Accepts connections to the pool host: reads each one's request, and hands the connection to its server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

from jina_asgi.concurrency.tasks import concurrent_tasks
from jina_asgi.errors import JinaASGIError, ProtocolError
from jina_asgi.processes.handshake import HostRequest, read_host_request
from jina_asgi.processes.shared_memory import OwnerSharing
from jina_asgi.protocols.frames.server import HELLO_LIMIT, FrameServer, Refusal
from jina_asgi.serving.programs.deployment_version import DeploymentVersion

logger = logging.getLogger("jina_asgi")

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
