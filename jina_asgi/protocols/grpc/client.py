"""gRPC's client half: a Runner that calls a server of Jina's protocol, ours or a real Jina."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from jina_asgi.protocols.grpc._metadata import metadata_of
from jina_asgi.protocols.grpc.channels import Channels, Dialling
from jina_asgi.protocols.grpc.remote import GrpcRemote
from jina_asgi.protocols.remote.runner import RemoteRunner
from jina_asgi.types import EMPTY, Endpoint


class GrpcRunner(RemoteRunner):
    """The endpoints of a server, as a Runner.

    Args:
        targets: "host:port" or "unix:/path" of the server, or of several equivalent ones: each call goes to the
            next available one.
        dialling: the options of connections.
        metadata: sent with every call.
        endpoints, grace, startup_timeout: as in `RemoteRunner`.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        dialling: Dialling | None = None,
        metadata: Mapping[str, str] = EMPTY,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        super().__init__(", ".join(targets), endpoints=endpoints, grace=grace, startup_timeout=startup_timeout)
        self._targets, self._dialling, self._metadata = tuple(targets), dialling or Dialling(), metadata

    def _forwarded(self, headers: dict[str, str]) -> dict[str, str]:
        _, unfit = metadata_of(headers)
        return {key: text for key, text in headers.items() if key not in unfit} if unfit else headers

    @asynccontextmanager
    async def _open_transport(self) -> AsyncIterator[GrpcRemote]:
        remote = GrpcRemote(Channels(self._targets, self._dialling), self._metadata)
        try:
            yield remote
        finally:
            await remote.close()
