"""The options of a Client."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from jina_asgi.settings.base import Settings


class ClientSettings(Settings):
    """What a Client takes beside its server's address."""

    owner = "Client"
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    headers: dict[str, str] = Field({}, description="sent with every request")
    verify: Any = Field(True, description="how a server's certificate is checked, as httpx takes it: an SSLContext")
    proxy: bool = Field(False, description="go through the proxy that the environment names")
    reuse_session: bool = Field(False, description="Jina's; connections are always kept until close()")
    suppress_root_logging: bool = Field(False, description="Jina's; the root logger is never touched here")
    log_config: Any = Field(None, description="Jina's; the logger is logging.getLogger('jina_asgi')")
