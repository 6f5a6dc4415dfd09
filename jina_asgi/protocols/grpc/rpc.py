"""One RPC from its server's side: who asks, until when, and what ends it with a code of gRPC's.

An answer that tells of an error is a message, as Jina has it. A code is for what kept a request from being run: who
gets UNAVAILABLE may ask again, and a Jina gateway does. It does so after INTERNAL too, so that this is never told.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import grpc
from starlette.exceptions import HTTPException

from jina_asgi.errors import JinaASGIError, ReplicaDied, TooLarge, Unauthenticated, Unavailable
from jina_asgi.protocols.problems import problem
from jina_asgi.settings import Auth, Limits
from jina_asgi.types import Endpoint, Runner

#: What is no answer, but the end of an RPC: nothing was run.
REFUSALS = (Unavailable, Unauthenticated, TooLarge, HTTPException)
_BY_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


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
    """Whether an error ends the RPC; not what a replica died of: that may have run, and nobody should repeat it."""
    return isinstance(error, REFUSALS) and not isinstance(error, ReplicaDied)


async def refuse(context: Any, error: Exception, *, expose: bool) -> NoReturn:
    """End an RPC with the code of an error; what is not the client's fault is logged."""
    status, body, _ = problem(error, expose=expose)
    detail = body["detail"]
    told = body["error"]
    trailers = [("jina-asgi-error", told["type"]), ("jina-asgi-error-id", told["id"])]
    if isinstance(error, Unavailable):
        wait = math.ceil(min(max(error.retry_after, 0.0), 3600.0) * 1000)
        trailers += [("retry-after-ms", str(wait)), ("grpc-retry-pushback-ms", str(wait))]
    code = _BY_STATUS.get(status, grpc.StatusCode.FAILED_PRECONDITION)
    if isinstance(error, JinaASGIError):
        code = grpc.StatusCode[error.grpc_code]
    if code is grpc.StatusCode.INTERNAL:
        code = grpc.StatusCode.UNKNOWN
    await context.abort(code, detail if isinstance(detail, str) else str(detail), tuple(trailers))
    raise AssertionError("abort has raised")


def headers_of(context: Any) -> dict[str, str]:
    """The metadata of an RPC as headers: names in lower case, several of a name in one; what is binary in base64."""
    headers: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        text = value if isinstance(value, str) else base64.b64encode(value).decode()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def deadline_of(context: Any) -> float | None:
    """The moment until which the client waits, on `time.monotonic`'s clock."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


async def identify(auth: Auth | None, headers: Mapping[str, str], endpoint: str) -> Any:
    """Who asks, as the `auth` hook says; None where there is no hook.

    Raises:
        Unauthenticated: the hook answered None.
    """
    if auth is None:
        return None
    identity = await auth(headers, endpoint)
    if identity is None:
        raise Unauthenticated("not authenticated; send the credentials that this service asks for, as metadata")
    return identity
