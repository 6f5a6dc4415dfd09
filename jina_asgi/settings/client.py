"""The options of a Client."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from jina_asgi.settings.base import Settings


class ClientSettings(Settings):
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
