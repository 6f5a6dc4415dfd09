"""The options of a JinaASGI, of gRPC beside it, and the limits of a request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from jina_asgi.concurrency.task_groups import as_async, is_generator
from jina_asgi.errors import DefinitionError
from jina_asgi.settings.base import MIB, Settings
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.settings.tracing import TracingSettings


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on: a host and a port (0: a free one), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """Parses "host:port", "[::1]:port" or "unix:/path".

        Raises:
            DefinitionError: the text has another form.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            path = f"/{path.lstrip('/')}" if path.startswith("//") else path
            if not path or "\0" in path:
                raise DefinitionError(f"grpc={text!r}: expected the path of a socket, as in 'unix:/run/model.sock'")
            return cls(path=path)
        try:
            parts = urlsplit(f"//{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise DefinitionError(f"grpc={text!r}: {error}") from error
        if not host or port is None or parts.netloc != text or "@" in text:
            raise DefinitionError(f"grpc={text!r}: expected 'host:port', such as '127.0.0.1:50051', or 'unix:/path'")
        return cls(host=host, port=port)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return bool(self.path) or self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False  # a host name

    @property
    def target(self) -> str:
        """The address as gRPC writes it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class GrpcSettings(Settings):
    """The options of gRPC in addition to those of the application."""

    owner = "grpc"

    bind: str = Field(description="'host:port', or 'unix:/path'")
    reflection: bool = Field(
        False, description="describe services and messages to clients; a Jina Flow needs this of its external nodes"
    )
    ssl_certfile: str | None = Field(None, description="the server's certificate, a file in PEM")
    ssl_keyfile: str | None = Field(None, description="the key of the certificate, a file in PEM")
    ssl_clients: str | None = Field(
        None, description="the CA of client certificates, a file in PEM; clients must then have one"
    )
    insecure_bind: bool = Field(False, description="allow other machines to connect without TLS or without `auth`")
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None = Field(None, description="compression of answers")
    shared: bool = Field(
        True, description="all workers of one server listen at the address, on Linux; False: only this one"
    )
    required: bool = Field(
        False, description="HTTP reports that it is not ready while gRPC is down; False: HTTP is ready without gRPC"
    )
    options: dict[str, Any] = Field({}, description="additional gRPC server options, which override those set here")

    @field_validator("bind")
    @classmethod
    def _binds(cls, bind: str) -> str:
        Bind.of(bind)
        return bind

    @model_validator(mode="after")
    def _secured(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together")
        if self.ssl_clients is not None and self.ssl_certfile is None:
            raise ValueError("ssl_clients needs ssl_certfile and ssl_keyfile")
        return self

    @property
    def where(self) -> Bind:
        """The address that it listens on."""
        return Bind.of(self.bind)

    def check_open(self, *, has_auth: bool) -> str:
        """Checks that other machines can connect only with TLS and authentication; returns a warning for the log, or "".

        Raises:
            DefinitionError: they can connect without TLS or authentication, and `insecure_bind` is not set.
        """
        lacking = ["TLS (ssl_certfile, ssl_keyfile)"] if self.ssl_certfile is None else []
        if not has_auth and self.ssl_clients is None:
            lacking.append("`auth` or ssl_clients")
        if self.where.is_local or not lacking:
            return ""
        where = f"grpc={self.bind!r} listens beyond this machine without {' and without '.join(lacking)}"
        if self.insecure_bind:
            return where
        raise DefinitionError(f"{where}: give both, or say insecure_bind=True")


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


class AppSettings(TracingSettings, MetricsSettings):
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
        playground: serve a page at `/-/` that shows the Flow or Deployment at work, and calls its endpoints.
        title, description, version: for the OpenAPI document.
        grpc: the address at which gRPC is served too, "host:port" or "unix:/path"; or the options of `GrpcSettings`.
        access_log: log a line for each call, to the logger `jina_asgi.access`.
        registry: a `CollectorRegistry` of prometheus_client, which shows the metrics too; with `metrics`.
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
    playground: bool = False
    title: str = "jina_asgi"
    description: str = ""
    version: str = "1"
    grpc: Annotated[GrpcSettings | None, BeforeValidator(_grpc)] = None
    access_log: bool = False
    registry: Any = Field(None, repr=False)
