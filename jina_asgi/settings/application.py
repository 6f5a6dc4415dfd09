"""The options of a JinaASGI, and the limits of a request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from jina_asgi.concurrency.hooks import as_async, is_generator
from jina_asgi.errors import DefinitionError
from jina_asgi.settings.base import MIB, Settings
from jina_asgi.settings.grpc import GrpcSettings

Auth = Callable[[Mapping[str, str], str], Awaitable[Any]]


def _auth(auth: Any) -> Any:
    """Converts the hook to an async function of the headers and the endpoint.

    Raises:
        ValueError: it is not such a function.
    """
    if not callable(auth) or is_generator(auth):
        raise ValueError("expected a function of the headers and the endpoint, `async def auth(headers, endpoint)`")
    with suppress(ValueError):  # its signature cannot be read
        signature = inspect.signature(auth)
        try:
            signature.bind({}, "/")
        except TypeError as error:
            raise DefinitionError(
                f"JinaASGI's option 'auth': expected `async def auth(headers, endpoint)`, got one of {signature}: {error}"
            ) from error
    return as_async(auth)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a single request.

    Attributes:
        body: bytes of a request's body.
        docs: documents in a request.
        depth: nesting levels of JSON.
        values: strings, keys, lists and mappings in a request, in every encoding; a mapping counts as four. 20 times as
            many numbers are allowed, and a tensor's buffer counts as one: 10,000 embeddings of 512 pass as JSON.
        parameters: values in a request's parameters.
        upload_memory: bytes of a form's parts, or of a single file, that are held in memory while they arrive; larger
            ones are stored in temporary files until the call has ended.
        stream_idle: seconds without an event after which a stream sends a heartbeat comment, and a WebSocket a ping.
        socket_calls: concurrent calls on one WebSocket, or in one gRPC stream.

    Raises:
        DefinitionError: a limit is not a number above zero.
    """

    body: int = 64 * MIB
    docs: int = 10_000
    depth: int = 64
    values: int = 2**18
    parameters: int = 2**15
    upload_memory: int = MIB
    stream_idle: float = 15.0
    socket_calls: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name != "stream_idle"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                kind = "whole number" if whole else "number"
                raise DefinitionError(f"Limits({field.name}={value!r}): expected a {kind} above zero")


def _grpc(given: Any) -> Any:
    if isinstance(given, str):
        return GrpcSettings.of({"bind": given})
    return GrpcSettings.of(given) if isinstance(given, Mapping) else given


class AppSettings(Settings):
    """The options of a JinaASGI.

    Attributes:
        auth: `async (headers, endpoint) -> identity or None` (a function that is not async runs in a thread). None is
            answered with 401, Starlette's HTTPException with its own status. It runs for every route but `/`, `/-/live`
            and `/-/ready`, before the body is read; its result is the Executor's `context.identity`. For `POST /post`
            and over gRPC it is called with "/post", and then with the endpoint that the body names.
        limits: the limits of one request (`Limits`).
        cors: True allows every origin, a list the origins in it; False leaves CORS to the host application.
        startup_wait: seconds that a call waits for the source to load before it is answered with 503.
        wait_ready: startup waits until everything has loaded, and fails if loading fails.
        expose_errors: send the messages of an Executor's own exceptions to clients (for development).
        title, description, version: for the OpenAPI document.
        grpc: the address at which gRPC is served too, "host:port" or "unix:/path"; or the options of `GrpcSettings`.
    """

    owner = "JinaASGI"

    auth: Annotated[Auth | None, BeforeValidator(lambda auth: None if auth is None else _auth(auth))] = Field(
        None, repr=False
    )
    limits: Annotated[Limits, BeforeValidator(lambda value: Limits() if value is None else value)] = Limits()
    cors: bool | list[str] = False
    startup_wait: float = Field(10.0, ge=0)
    wait_ready: bool = False
    expose_errors: bool = False
    title: str = "jina_asgi"
    description: str = ""
    version: str = "1"
    grpc: Annotated[GrpcSettings | None, BeforeValidator(_grpc)] = None
