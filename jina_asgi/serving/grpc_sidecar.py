"""Serves an application's service over gRPC too, in the process that serves HTTP, during its lifespan.

If it cannot listen on its address, the start of the server fails. If it is lost later, HTTP goes on, and gRPC is started
again, with growing pauses, until it listens.
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

from jina_asgi.concurrency.lifecycle import SharedLifespan, health_signal
from jina_asgi.concurrency.tasks import concurrent_tasks
from jina_asgi.errors import DefinitionError
from jina_asgi.excepts import AddressInUse
from jina_asgi.runners.pool._restarts import LOOP_SECONDS, Restarts
from jina_asgi.serving.management import versions
from jina_asgi.serving.service import RunnerService
from jina_asgi.settings import GrpcSettings

logger = logging.getLogger("jina_asgi")

_LAST = 1.0  # seconds to send answers after all calls have ended
_FINISH = 5.0  # seconds for open calls of a server that no longer listens, before it is started again


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
        self._restarts, self._shared = 0, SharedLifespan()
        self._state, self._why = "stopped", ""
        service.on_lazy_start = self._missed
        if settings.required:
            service.add_health_check(self.unhealthy_reason)

    @property
    def port(self) -> int | None:
        """Where it listens; None for a Unix socket, and before it does."""
        return self._server.port

    def unhealthy_reason(self) -> str:
        """Why gRPC is not served now; "" if it is."""
        if self._state == "serving":
            return ""
        return "gRPC is not served" if self._state == "stopped" else "gRPC is down, and is started again"

    def status(self) -> dict[str, Any]:
        """For `/-/status`: "stopped", "serving" or "down"."""
        found = {"state": self._state, "address": self._settings.bind, "port": self.port, "restarts": self._restarts}
        return {**found, "reason": self._why} if self._why else found

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Listens while the application has a lifespan, of which it may have several: it may be mounted twice.

        Raises:
            PortAlreadyUsed: the port is in use. DefinitionError: the address or a certificate is invalid.
        """
        if self._shared.is_elsewhere:
            yield
            return
        async with self._shared.entered(self._listening):
            yield

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        try:
            async with concurrent_tasks(self._keep(await self._begun())):
                yield
        finally:
            self._state, self._why = "stopped", ""
            await self._close(_LAST)

    async def _begun(self) -> Exception | None:
        """Listens at the start of a server, or of one of its workers; returns a failure that may be temporary."""
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
        health_signal.notify()

    def _claimed(self, held: ExitStack, *, waits: bool) -> Callable[[], None] | None:
        """Claims the address; returns the callback to run when it is bound, or None if addresses are not claimed."""
        where = self._settings.where
        if sys.platform != "linux" or not (where.path or (where.port and self._settings.shared)):
            return None
        from jina_asgi.processes.locks import claimed  # for Linux

        return held.enter_context(claimed(where, waits=waits))

    async def _close(self, grace: float) -> None:
        try:
            await self._server.close(grace)
        finally:
            self._held.close()

    async def _keep(self, missing: Exception | None) -> None:
        """Restarts it whenever it ends, until serving ends; `missing`: why it could not listen at first."""
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
        """Listens again; returns the failure."""
        try:
            await self._close(_FINISH)
            await self._open(waits=False)
        except Exception as error:  # noqa: BLE001  # logged, and tried again
            return error
        self._restarts += 1
        logger.warning("gRPC at %s answers again", self._settings.bind)
        return None

    def _log_loss(self, missing: Exception) -> None:
        """Logs why it is down, once for each reason."""
        before, self._why, self._state = self._why, str(missing), "down"
        if self._why != before:
            logger.error(
                "gRPC at %s is down: %s; HTTP goes on, and gRPC is started again", self._settings.bind, missing
            )

    def _missed(self) -> None:
        """Logs that a call came without a lifespan, so that gRPC is not served."""
        if self._shared.users or self._why:
            return
        self._why = "this server sends no lifespan events, or the host does not pass them on"
        logger.warning("gRPC at %s is not served: %s", self._settings.bind, self._why)
