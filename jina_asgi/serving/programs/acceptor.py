"""A connection to the pool host: what it asks first, and who answers it from then on."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

from jina_asgi.concurrency.tasks import beside
from jina_asgi.errors import JinaASGIError, ProtocolError
from jina_asgi.processes.handshake import Ask, read_ask
from jina_asgi.processes.shared_memory import KeeperSharing
from jina_asgi.protocols.frames.server import HELLO_LIMIT, FrameServer, Refusal
from jina_asgi.serving.programs.deployment_version import Generation

logger = logging.getLogger("jina_asgi")

_ASKING = 10.0  # seconds in which a connection must say what it wants
_PEER = struct.Struct("3i")  # pid, uid, gid


class Reception(asyncio.Protocol):
    """A connection that has not yet said what it wants.

    `welcome` is told what it asks to be served; `status` answers those who ask for that.
    """

    def __init__(self, welcome: Callable[[Reception, Ask], None], status: Callable[[], Mapping[str, Any]]) -> None:
        self._welcome, self._status, self._buffer = welcome, status, b""
        self._loop = asyncio.get_running_loop()
        self._asked = False
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(_ASKING, self._transport.abort)
        peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(peer)
        if uid != os.geteuid():
            logger.warning("user %d may not use this pool", uid)
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._asked:  # its first frames, for whoever will serve it
            if len(self._buffer) > HELLO_LIMIT:
                self._transport.abort()
            return
        try:
            found = read_ask(self._buffer)
        except ProtocolError as error:
            logger.warning("a connection to the pool host ends: %s", error)
            self._transport.abort()
            return
        if found is not None:
            self._asked = True
            ask, self._buffer = found
            self._timer.cancel()
            if ask.ask == "status":
                self._transport.write(json.dumps(self._status(), default=str).encode())
                self._transport.close()
            else:
                self._welcome(self, ask)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.gone.set()

    async def hand_over(self, generation: Generation, *, until: Generation | None = None) -> None:
        """Serve a Deployment on this connection until it ends; or until another works, which it is then to be asked for.

        A connection that has ended meanwhile is not served: nothing would tell that it has.
        """
        if self.gone.is_set():
            return
        if self.gone.is_set():  # what is connected too late would never learn of its end
            return
        server = FrameServer(generation.runner, sharing=KeeperSharing(), metrics=generation.runner.status)
        generation.connections.add(server)
        turning = () if until is None else (_turn(server, until, generation.settings.grace),)
        try:
            async with beside(*turning):
                await self._serve(server)
        finally:
            generation.connections.discard(server)

    def close(self) -> None:
        """End this connection, if it has not."""
        self._transport.abort()

    async def refuse(self, error: JinaASGIError) -> None:
        """Say why there will be no hello."""
        if not self.gone.is_set():
            await self._serve(Refusal(error))

    async def _serve(self, server: FrameServer) -> None:
        self._transport.set_protocol(server)
        server.connection_made(self._transport)
        if self._buffer:
            server.data_received(self._buffer)
        await server.closed.wait()  # what was cancelled may take longer: that holds up no end, but is ended with it


async def _turn(server: FrameServer, to: Generation, grace: float) -> None:
    """Send whoever is connected to another version once that works."""
    await to.ready.wait()
    if to.works:
        await server.drain(grace)
