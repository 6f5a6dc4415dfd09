"""Who may ask in Jina's protocol, and what keeps a request from being run: the same over gRPC and its WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from starlette.exceptions import HTTPException

from jina_asgi.concurrency.hooks import settled
from jina_asgi.errors import ExecutorHTTPError, ReplicaDied, TooLarge, Unauthenticated, Unavailable
from jina_asgi.settings import Auth, Limits
from jina_asgi.types import Endpoint, Runner

#: What is no answer, but the end of an RPC: nothing was run.
REFUSALS = (Unavailable, Unauthenticated, TooLarge, HTTPException)


class Lasting(Protocol):
    """Where the Runner lives, whether it can answer, and who says when that ends."""

    @property
    def ready(self) -> bool: ...

    @property
    def leaving(self) -> bool: ...

    async def runner(self) -> Runner:
        """The Runner, as this event loop may call it; waits for it a while, then raises NotReady."""
        ...

    def reason(self) -> str: ...

    def start(self) -> Any: ...

    def follow(self, told: Any) -> None: ...

    def unfollow(self, told: Any) -> None: ...


class Known(Protocol):
    """The endpoints that are served here."""

    async def loaded(self) -> Mapping[str, Endpoint]:
        """Those that are served now; waits for them as calls do, then raises NotReady."""
        ...


class RpcOptions(Protocol):
    """What an application decides for all its endpoints."""

    @property
    def limits(self) -> Limits: ...
    @property
    def auth(self) -> Auth | None: ...
    @property
    def expose_errors(self) -> bool: ...


def is_refusal(error: BaseException) -> bool:
    """Whether an error ends the RPC; not what a replica died of, nor an Executor's own: that may have run, and should not be repeated."""
    return isinstance(error, REFUSALS) and not isinstance(error, ReplicaDied | ExecutorHTTPError)


async def identify(auth: Auth | None, headers: Mapping[str, str], endpoint: str) -> Any:
    """Who asks, as the `auth` hook says; None where there is no hook.

    Raises:
        Unauthenticated: the hook answered None.
    """
    if auth is None:
        return None
    identity = await settled(auth(headers, endpoint))
    if identity is None:
        raise Unauthenticated(
            "not authenticated; send the credentials that this service asks for, as headers or metadata"
        )
    return identity
