"""The options of gRPC serving: address, certificates, reflection."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from jina_asgi.errors import DefinitionError
from jina_asgi.settings.base import Settings


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
