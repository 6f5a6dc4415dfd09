"""A web worker's side of the pool host: the Runner over a connection that comes back by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from jina_asgi.concurrency.tasks import beside
from jina_asgi.errors import DefinitionError, ExecutorError, NotReady
from jina_asgi.executors.import_path import Uses
from jina_asgi.processes import host_socket
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.handshake import Ask
from jina_asgi.processes.log_config import Logs
from jina_asgi.processes.shared_memory import PeerSharing
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.runners.pool.runner import PoolRunner
from jina_asgi.runners.pool.supervisor import Seat
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Endpoint

_LOADING = 24 * 3600.0  # seconds: the host itself says when loading takes too long


class HostConnection:
    """One connection to the host of this server instance, which is started where there is none."""

    def __init__(self, name: str, ask: Ask, endpoints: Mapping[str, Endpoint] | None, heartbeat: float) -> None:
        self.name, self._ask, self._heartbeat = name, ask, heartbeat
        self._host = 0  # its pid, once it has loaded
        self.client = FrameClient(
            self._connect, endpoints=endpoints, hello_timeout=_LOADING, grace=0.0, sharing=PeerSharing
        )
        self._life: AbstractAsyncContextManager[None] = self.client.lifespan()
        self._why = ""

    @property
    def pid(self) -> int | None:
        """None: the host is no child of this process."""
        return None

    @property
    def device(self) -> str:
        """None of its own."""
        return ""

    async def start(self) -> None:
        """Connect, and wait until the Deployment has loaded there.

        Raises:
            ExecutorError: it failed to load. NotReady: there is no host, and none could be started; or it gave no sign
                of life for a heartbeat, and was ended.
        """
        instance = server_instance.instance()
        async with beside(self._life.__aenter__(), host_socket.silent(instance, self._heartbeat)) as (loading, silence):
            await asyncio.wait([loading, silence], return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                pid = silence.result()
                await asyncio.to_thread(host_socket.end, instance, pid)
                raise NotReady(
                    f"{self.name} (process {pid}) gave no sign of life for {self._heartbeat:g} s as it loaded"
                )
            await loading
        self._host, _ = server_instance.keeper(server_instance.folder(instance.key)) or (0, 0)

    async def ended(self) -> str:
        """Wait until the connection is gone; why."""
        await self.client.lost()
        return self._why or "is gone"

    async def leaves(self) -> None:
        """Wait until the host asks to be connected to anew: a newer version of the Deployment has loaded."""
        await self.client.leaves()

    async def stop(self) -> None:
        """Close the connection; what still runs is cancelled."""
        await self._life.__aexit__(None, None, None)

    async def kill(self, why: str) -> None:
        """End the connection at once."""
        self._why = self._why or why
        self.client.abort()
        await self.client.lost()

    async def end_hung(self, why: str) -> None:
        """End the host, and with it what hangs for every worker."""
        await asyncio.to_thread(host_socket.end, server_instance.instance(), self._host)
        await self.kill(why)

    def resident(self) -> int:
        """Nothing of this process's."""
        return 0

    async def _connect(
        self, factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        connection = await asyncio.to_thread(self._called)
        connection.setblocking(False)
        return await asyncio.get_running_loop().create_unix_connection(factory, sock=connection)

    def _called(self) -> socket.socket:
        connection = host_socket.connect(server_instance.instance())
        try:
            connection.sendall(msgspec.structs.replace(self._ask, logs=Logs.here()).dumps())
        except BaseException:
            connection.close()
            raise
        return connection


def _is_final(error: Exception) -> bool:
    return isinstance(error, ExecutorError | DefinitionError)  # the host has tried again itself


def hosted(uses: Uses, settings: DeploymentSettings, endpoints: Mapping[str, Endpoint] | None) -> PoolRunner:
    """The Runner over the replicas that this server instance's host keeps.

    Raises:
        DefinitionError: an option cannot be given to another process.
    """
    ask = Ask.to_serve(uses, settings, endpoints)
    restarts = Restarts()

    def make(index: int) -> HostConnection:
        return HostConnection(f"the pool host of {settings.name}", ask, endpoints, settings.heartbeat)

    return PoolRunner(
        settings.name,
        [Seat(0, make, restarts, heartbeat=settings.heartbeat, grace=settings.grace, decisive=_is_final)],
        restarts,
        endpoints=endpoints,
        room=settings.max_queue,
        again=lambda endpoint: endpoint.idempotent,
        admission=Admission(settings.max_queue, settings.max_queue_bytes),
        grace=settings.grace,
        called="host",
        patient=True,
    )
