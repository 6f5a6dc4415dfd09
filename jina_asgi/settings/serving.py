"""How a Deployment or a Flow is served by itself, without anybody's application around it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from jina_asgi.settings.application import AppSettings
from jina_asgi.settings.base import Settings
from jina_asgi.settings.grpc import Bind, GrpcSettings

Spoken = Literal["grpc", "http", "websocket"]
Port = Annotated[int, Field(ge=0, le=65535)]


class ServingSettings(Settings):
    """Jina's options of the front: where it listens, and what it says there."""

    host: str | list[str] = Field("127.0.0.1", description="the address that is listened on; where an external one is")
    port: Port | list[Port] | None = Field(None, description="a port each protocol; None: free ones are chosen")
    protocol: str | list[str] = Field("grpc", description="what is spoken: grpc, http, websocket, or several of them")
    title: str = Field("jina_asgi", description="of the OpenAPI document")
    description: str = Field("", description="of the OpenAPI document")
    cors: bool | list[str] = Field(False, description="allow every origin, or those in a list")
    ssl_certfile: str | None = Field(None, description="a certificate, in PEM")
    ssl_keyfile: str | None = Field(None, description="its key, in PEM")
    uvicorn_kwargs: dict[str, Any] = Field({}, description="for uvicorn.Config")
    reflection: bool = Field(False, description="gRPC tells which services it has; a Jina Flow asks its external nodes")
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None = Field(None, description="of gRPC's messages")
    grpc_server_options: dict[str, Any] = Field({}, description="gRPC's own for the server")
    quiet: bool = Field(False, description="print no address when it is served")

    @field_validator("protocol")
    @classmethod
    def _spoken(cls, protocol: str | list[str]) -> str | list[str]:
        named = [protocol] if isinstance(protocol, str) else protocol
        known = [name for name in named if name.lower() in ("grpc", "http", "websocket")]
        if len(known) < len(named) or not named or len({name.lower() for name in named}) < len(named):
            raise ValueError("expected 'grpc', 'http', 'websocket' or a list of them")
        return protocol

    @model_validator(mode="after")
    def _served(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together")
        hosts = self.host.split(",") if isinstance(self.host, str) else self.host
        if isinstance(self.port, list) and len(self.port) not in (len(self.protocols), len(hosts)):
            raise ValueError(f"port={self.port}: expected a port for each of {', '.join(self.protocols)}")
        return self

    @property
    def protocols(self) -> list[Spoken]:
        """What is spoken, a port each."""
        named = [self.protocol] if isinstance(self.protocol, str) else self.protocol
        return cast("list[Spoken]", [name.lower() for name in named])

    @property
    def ports(self) -> list[int]:
        """Where each is spoken; 0: wherever there is room."""
        if isinstance(self.port, list):
            return self.port
        one = len(self.protocols) == 1
        return [self.port or 0] if one else [0] * len(self.protocols)

    @property
    def address(self) -> str:
        """What is listened on."""
        return self.host if isinstance(self.host, str) else self.host[0]

    @property
    def urls(self) -> list[str]:
        """Where what is external is asked: "h1:p1,h2:p2", or lists; a scheme is over `protocol`."""
        hosts = self.host.split(",") if isinstance(self.host, str) else self.host
        ports = self.port if isinstance(self.port, list) else [self.port] * len(hosts)
        made = []
        for host, port in zip(hosts, ports, strict=True):
            with_scheme = host if "://" in host else f"{self.protocols[0]}://{host}"
            named = with_scheme.rpartition("]")[2].count(":") > (1 if "]" not in with_scheme else 0)
            made.append(with_scheme if named or port is None else f"{with_scheme}:{port}")
        return made

    @property
    def application(self) -> AppSettings:
        """The options of the application that is served."""
        said = {"title": self.title, "description": self.description, "cors": self.cors, "wait_ready": True}
        return AppSettings.of({**said, "grpc": self._grpc})

    @property
    def _grpc(self) -> GrpcSettings | None:
        if "grpc" not in self.protocols:
            return None
        where = Bind(host=self.address, port=self.ports[self.protocols.index("grpc")])
        return GrpcSettings(
            bind=where.target,
            reflection=self.reflection,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
            compression=self.compression,
            options=self.grpc_server_options,
            insecure_bind=True,  # `host` was said
            shared=False,
            required=self.protocols == ["grpc"],
        )
