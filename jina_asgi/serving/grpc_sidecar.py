"""gRPC for an application: the same service, in the process that serves HTTP, for as long as that serves.

An address that cannot be listened on ends the start of a server. A loss later ends nothing: HTTP goes on, and gRPC is
started again, with pauses that grow, until it is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from jina_asgi.concurrency.tasks import concurrent_tasks
from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import AddressInUse
from jina_asgi.runners.pool._restarts import LOOP_SECONDS, Restarts
from jina_asgi.serving.management import versions
from jina_asgi.serving.service import RunnerService
from jina_asgi.settings import GrpcSettings

logger = logging.getLogger("jina_asgi")

_LAST = 1.0  # seconds that answers get to go out once everything has been answered
_FINISH = 5.0  # seconds that calls get whose server can be reached no more, before it is started again


class Sidecar:
    """The gRPC server of one application, and its lifecycle.

    Raises:
        DefinitionError: grpcio is missing; or any machine could connect.
    """

    def __init__(self, settings: GrpcSettings, service: RunnerService) -> None:
        self._open_to_others = settings.check_open(has_auth=service.has_auth)
        try:
            from jina_asgi.protocols.grpc.server import GrpcServer  # with grpcio and protobuf, an extra
        except ImportError as error:
            raise DefinitionError(
                f"grpc={settings.bind!r} needs the extra grpc: pip install 'jina-asgi[grpc]' ({error})"
            ) from error
        self._settings, self._service = settings, service
        self._server = GrpcServer(settings, service, versions)
        self._held = ExitStack()
        self._users = self._restarts = 0
        self._state, self._why = "stopped", ""
        service.on_lazy_start = self._missed
        if settings.required:
            service.add_health_check(self.unhealthy_reason)

    @property
    def port(self) -> int | None:
        """Where it listens; None for a Unix socket, and before it does."""
        return self._server.port

    def unhealthy_reason(self) -> str:
        """Why gRPC is not served now; "" where it is."""
        if self._state == "serving":
            return ""
        return "gRPC is not served" if self._state == "stopped" else "gRPC is down, and is started again"

    def status(self) -> dict[str, Any]:
        """For `/-/status`: "stopped", "serving" or "down"."""
        found = {"state": self._state, "address": self._settings.bind, "port": self.port, "restarts": self._restarts}
        return {**found, "reason": self._why} if self._why else found

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Listen; within a lifespan of the same application (it is mounted twice) this one does nothing.

        Raises:
            PortAlreadyUsed: the port is in use. DefinitionError: the address or a certificate is invalid.
        """
        self._users += 1
        try:
            if self._users > 1:
                yield
                return
            try:
                async with concurrent_tasks(self._keep(await self._begun())):
                    yield
            finally:
                self._state, self._why = "stopped", ""
                await self._close(_LAST)
        finally:
            self._users -= 1

    async def _begun(self) -> Exception | None:
        """Listen, at the start of a server or of one of its workers; what keeps it from that and may pass."""
        if self._open_to_others:
            logger.warning("%s", self._open_to_others)
        try:
            await self._open(waits=True)
        except AddressInUse as taken:
            return taken
        return None

    async def _open(self, *, waits: bool) -> None:
        with ExitStack() as held:
            bound = self._claimed(held, waits=waits)
            shares_port = bound is not None and not self._settings.where.path
            await self._server.open(shares_port=shares_port, port=None if waits else self.port)
            if bound is not None:
                bound()
            self._held = held.pop_all()
        self._state, self._why = "serving", ""

    def _claimed(self, held: ExitStack, *, waits: bool) -> Callable[[], None] | None:
        """Claims the address; returns the callback to run once it is bound, or None where addresses are not claimed."""
        where = self._settings.where
        if sys.platform != "linux" or not (where.path or (where.port and self._settings.shared)):
            return None
        from jina_asgi.processes.port_lock import claimed  # for Linux

        return held.enter_context(claimed(where, waits=waits))

    async def _close(self, grace: float) -> None:
        try:
            await self._server.close(grace)
        finally:
            self._held.close()

    async def _keep(self, missing: Exception | None) -> None:
        """Have it listen, whatever ends it, until serving ends; `missing`: what kept it from that at first."""
        restarts = Restarts()
        while True:
            if missing is None:
                since = time.monotonic()
                lost = await self._server.lost()
                if lost is None:
                    return
                if time.monotonic() - since > LOOP_SECONDS:
                    restarts = Restarts()
                missing = ConnectionError(lost)
            self._log_loss(missing)
            await asyncio.sleep(restarts.failed(0, time.monotonic(), random.random()))  # noqa: S311  # no secret
            if self._service.is_draining:
                return
            missing = await self._tried()

    async def _tried(self) -> Exception | None:
        """Listen again; what keeps it from that."""
        try:
            await self._close(_FINISH)
            await self._open(waits=False)
        except Exception as error:  # noqa: BLE001  # logged, and tried again
            return error
        self._restarts += 1
        logger.warning("gRPC at %s answers again", self._settings.bind)
        return None

    def _log_loss(self, missing: Exception) -> None:
        """Log why it is down, once while that stays the same."""
        before, self._why, self._state = self._why, str(missing), "down"
        if self._why != before:
            logger.error(
                "gRPC at %s is down: %s; the rest goes on, and it is tried again", self._settings.bind, missing
            )

    def _missed(self) -> None:
        """A call came though no lifespan has, so that it is not known when to listen."""
        if self._users or self._why:
            return
        self._why = "this server sends no lifespan events, or the host does not pass them on"
        logger.warning("gRPC at %s is not served: %s", self._settings.bind, self._why)
