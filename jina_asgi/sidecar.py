"""gRPC beside an application: it answers from the same Runner, in the process that serves, for as long as that serves."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Protocol

from jina_asgi.errors import DefinitionError
from jina_asgi.home import Home
from jina_asgi.management import versions
from jina_asgi.settings import AppSettings, GrpcSettings
from jina_asgi.types import Endpoint

_LAST = 1.0  # seconds that answers get to go out once everything has been answered


class Known(Protocol):
    """The endpoints that are served here."""

    async def loaded(self) -> Mapping[str, Endpoint]:
        """Those that are served now; waits for them as calls do, then raises NotReady."""
        ...


class Sidecar:
    """What answers over gRPC.

    Raises:
        DefinitionError: grpcio is missing; it would be open to everybody.
    """

    def __init__(self, settings: GrpcSettings, options: AppSettings, home: Home, known: Known) -> None:
        settings.check_open(has_auth=options.auth is not None)
        try:
            from jina_asgi.protocols.grpc.server import GrpcServer  # with grpcio and protobuf, an extra
        except ImportError as error:
            raise DefinitionError(
                f"grpc={settings.bind!r} needs the extra grpc: pip install 'jina-asgi[grpc]' ({error})"
            ) from error
        self._settings = settings
        self._server = GrpcServer(settings, options, home, known, versions)
        self._users = 0

    @property
    def port(self) -> int | None:
        """Where it listens; None for a Unix socket, and before it does."""
        return self._server.port

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Listen; within a lifespan of the same application (it is mounted twice) this one does nothing.

        Raises:
            PortAlreadyUsed: somebody else listens there. DefinitionError: the address or a certificate is none.
        """
        self._users += 1
        try:
            if self._users > 1:
                yield
                return
            with ExitStack() as held:
                bound = self._claimed(held)
                await self._server.open(shares_port=bound is not None and not self._settings.where.path)
                if bound is not None:
                    bound()
                try:
                    yield
                finally:
                    await self._server.close(_LAST)
        finally:
            self._users -= 1

    def _claimed(self, held: ExitStack) -> Callable[[], None] | None:
        """Where workers of this server share the port, which nobody else has: what is to be called once it is bound."""
        where = self._settings.where
        if sys.platform != "linux" or not (where.path or (self._settings.shared and where.port)):
            return None
        from jina_asgi.processes.ports import claimed, claimed_path  # for Linux

        if where.path:
            return held.enter_context(claimed_path(where.path))
        return held.enter_context(claimed(where.host, where.port))
