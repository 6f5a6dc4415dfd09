"""The Runner of a web worker over the pool host, by a connection that is replaced when it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from jina_asgi.concurrency.tasks import concurrent_tasks
from jina_asgi.errors import DefinitionError, ExecutorError, NotReady
from jina_asgi.executors.import_path import Uses
from jina_asgi.processes import host_socket
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.handshake import HostRequest
from jina_asgi.processes.logs import LogConfig
from jina_asgi.processes.shared_memory import PeerSharing
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.runners.pool.replica import Replica
from jina_asgi.runners.pool.runner import PoolRunner
from jina_asgi.runners.pool.supervisor import ReplicaSupervisor
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Endpoint

_LOADING = 24 * 3600.0  # seconds: the host itself reports when loading takes too long


class HostConnection(Replica):
    """One connection to the pool host of this server instance, which is started if it does not run."""

    client: FrameClient

    def __init__(self, name: str, ask: HostRequest, endpoints: Mapping[str, Endpoint] | None, heartbeat: float) -> None:
        super().__init__(name)
        self._ask, self._heartbeat = ask, heartbeat
        self._host = 0  # its pid, once the Deployment has loaded
        self.client = FrameClient(
            self._connect, endpoints=endpoints, hello_timeout=_LOADING, grace=0.0, sharing=PeerSharing
        )
        self._lifespan: AbstractAsyncContextManager[None] = self.client.lifespan()
        self._why = ""

    async def start(self) -> None:
        """Connects, and waits until the Deployment has loaded in the host.

        Raises:
            ExecutorError: it failed to load. NotReady: the host does not run and could not be started; or it was silent
                for a heartbeat, and was killed.
        """
        instance = server_instance.instance()
        async with concurrent_tasks(
            self._lifespan.__aenter__(), host_socket.wait_until_silent(instance, self._heartbeat)
        ) as (
            loading,
            silence,
        ):
            await asyncio.wait([loading, silence], return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                pid = silence.result()
                await asyncio.to_thread(host_socket.end, instance, pid)
                raise NotReady(
                    f"{self.name} (process {pid}) gave no sign of life for {self._heartbeat:g} s as it loaded"
                )
            await loading
        self._host, _ = server_instance.pool_host_of(server_instance.folder(instance.key)) or (0, 0)

    async def ended(self) -> str:
        """Waits until the connection is closed; returns why."""
        await self.client.lost()
        return self._why or "is gone"

    async def leaves(self) -> None:
        """Waits until the host requests a new connection because a newer version of the Deployment has loaded."""
        await self.client.leaves()

    async def stop(self) -> None:
        """Closes the connection; open calls are cancelled."""
        await self._lifespan.__aexit__(None, None, None)

    async def kill(self, why: str) -> None:
        """Closes the connection at once."""
        self._why = self._why or why
        self.client.abort()
        await self.client.lost()

    async def end_hung(self, why: str) -> None:
        """Kills the host, and with it the replicas that hang for every worker."""
        await asyncio.to_thread(host_socket.end, server_instance.instance(), self._host)
        await self.kill(why)

    async def _connect(
        self, factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        connection = await asyncio.to_thread(self._connect_and_request)
        connection.setblocking(False)
        return await asyncio.get_running_loop().create_unix_connection(factory, sock=connection)

    def _connect_and_request(self) -> socket.socket:
        connection = host_socket.connect(server_instance.instance())
        try:
            connection.sendall(msgspec.structs.replace(self._ask, logs=LogConfig.current()).dumps())
        except BaseException:
            connection.close()
            raise
        return connection


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, ExecutorError | DefinitionError)  # the host has retried already


class HostRunner(PoolRunner):
    """A pool of one replica, the pool host: calls wait and are retried while it is connected again.

    Raises:
        DefinitionError: an option cannot be sent to another process.
    """

    queue_when_unhealthy = True  # the host has the queue

    def __init__(self, uses: Uses, settings: DeploymentSettings, endpoints: Mapping[str, Endpoint] | None) -> None:
        ask, restarts, heartbeat = HostRequest.to_serve(uses, settings, endpoints), Restarts(), settings.heartbeat

        def connection(index: int) -> HostConnection:
            return HostConnection(f"the pool host of {settings.name}", ask, endpoints, heartbeat)

        supervisor = ReplicaSupervisor(
            0, connection, restarts, heartbeat=heartbeat, grace=settings.grace, is_permanent=_is_permanent
        )
        super().__init__(
            settings.name,
            [supervisor],
            restarts,
            endpoints=endpoints,
            max_busy=settings.max_queue,
            may_retry=lambda endpoint: endpoint.idempotent,
            admission=Admission(settings.max_queue, settings.max_queue_bytes),
            grace=settings.grace,
        )

    def status(self) -> dict[str, Any]:
        """Return the host's metrics, as it last reported them, and this worker's."""
        own = super().status()
        connections = own.pop("replicas")
        reported = next((handle.client.metrics for handle in self._handles), None)
        return {**reported, "worker": own, "host": connections} if reported else {"host": connections, **own}
