"""The options of a Deployment or a Flow that is served by itself, outside of a host application, and of a Client."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import ConfigDict, Field, field_validator, model_validator

from jina_asgi.settings.application import AppSettings, Bind, GrpcSettings
from jina_asgi.settings.base import Settings
from jina_asgi.settings.tracing import TracingSettings


class ClientSettings(TracingSettings):
    """What a Client takes beside its server's address."""

    owner = "Client"
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    headers: dict[str, str] = Field({}, description="sent with every request")
    verify: Any = Field(
        True,
        description="how the server's certificate is verified: True, False or an SSLContext, as in httpx; over gRPC a CA file in PEM",
    )
    cert: tuple[str, str] | None = Field(
        None, description="over gRPC: the client's certificate and its key, files in PEM"
    )
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None = Field(
        None, description="compression of gRPC messages"
    )
    grpc_channel_options: dict[str, Any] = Field({}, description="additional gRPC channel options")
    proxy: bool = Field(False, description="use the proxy named in the environment")
    reuse_session: bool = Field(False, description="Jina's; connections are always kept until close()")
    suppress_root_logging: bool = Field(False, description="Jina's; the root logger is never touched here")
    log_config: Any = Field(None, description="Jina's; the logger is logging.getLogger('jina_asgi')")


#: The named configurations of the log.
LOGS = ("default", "json", "plain", "quiet")
_JINAS = dict.fromkeys(("docker", "profile", "remote"), "plain")


def known_log_config(chosen: str | None) -> str | None:
    """One of `LOGS` or the path of a YAML; None if none is chosen.

    Raises:
        ValueError: it is neither.
    """
    if chosen is None:
        return None
    found = _JINAS.get(chosen, chosen)
    if found not in LOGS and not found.endswith((".yml", ".yaml")):
        raise ValueError(f"expected {', '.join(map(repr, LOGS))} or the path of a YAML")
    return found


ServedProtocol = Literal["grpc", "http", "websocket"]
Port = Annotated[int, Field(ge=0, le=65535)]


class ServingSettings(Settings):
    """Jina's options of the server: its addresses and protocols."""

    host: str | list[str] = Field(
        "127.0.0.1", description="the address to listen on; the address of an external Deployment"
    )
    port: Port | list[Port] | None = Field(None, description="one port for each protocol; None: free ports are chosen")
    protocol: str | list[str] = Field(
        "grpc", description="the protocols served: grpc, http, websocket, or a list of them"
    )
    title: str = Field("jina_asgi", description="the title of the OpenAPI document")
    description: str = Field("", description="the description in the OpenAPI document")
    cors: bool | list[str] = Field(False, description="True allows every origin, a list the origins in it")
    ssl_certfile: str | None = Field(None, description="the server's certificate, a file in PEM")
    ssl_keyfile: str | None = Field(None, description="the key of the certificate, a file in PEM")
    uvicorn_kwargs: dict[str, Any] = Field({}, description="additional arguments of uvicorn.Config")
    reflection: bool = Field(
        False, description="describe services to gRPC clients; a Jina Flow needs this of its external nodes"
    )
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None = Field(
        None, description="compression of gRPC messages"
    )
    grpc_server_options: dict[str, Any] = Field({}, description="additional gRPC server options")
    playground: bool = Field(False, description="serve a page at `/-/` that shows it at work, and calls its endpoints")

    log_config: str | None = Field(
        None,
        description="the log of a server and its replicas, if the application has configured none: default, json, plain,"
        " quiet, or the path of a YAML",
    )
    quiet: bool = Field(False, description="log nothing, and do not print the addresses when serving starts")
    quiet_error: bool = Field(False, description="leave tracebacks out of the log")
    access_log: bool = Field(False, description="log a line for each call")

    @field_validator("log_config")
    @classmethod
    def _known(cls, chosen: str | None) -> str | None:
        return known_log_config(chosen)

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
    def protocols(self) -> list[ServedProtocol]:
        """The protocols, in the order of their ports."""
        named = [self.protocol] if isinstance(self.protocol, str) else self.protocol
        return cast("list[ServedProtocol]", [name.lower() for name in named])

    @property
    def ports(self) -> list[int]:
        """The port of each protocol; 0: a free one."""
        if isinstance(self.port, list):
            return self.port
        one = len(self.protocols) == 1
        return [self.port or 0] if one else [0] * len(self.protocols)

    @property
    def address(self) -> str:
        """The address to listen on."""
        return self.host if isinstance(self.host, str) else self.host[0]

    @property
    def urls(self) -> list[str]:
        """The URLs of an external Deployment, from "h1:p1,h2:p2" or lists; a scheme overrides `protocol`."""
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
        """The options of the served application."""
        given = {name: getattr(self, name) for name in ("title", "description", "cors", "playground")}
        return AppSettings.of({**given, "wait_ready": True, "grpc": self._grpc})

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
            insecure_bind=True,  # `host` was given explicitly
            shared=False,
            required=self.protocols == ["grpc"],
        )
