"""The options of a Deployment and of a mounted application, each declared once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jina_asgi.errors import DefinitionError
from jina_asgi.types import Endpoint

MIB = 2**20


class DeploymentSettings(BaseModel):
    """The options of one Deployment. Names that Jina has keep its meaning."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("executor", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")
    uses_with: dict[str, Any] = {}
    uses_metas: dict[str, Any] = {}
    uses_requests: dict[str, str] = {}
    workspace: str | None = None
    allow_concurrent: bool | int = Field(False, description="threads for synchronous endpoints; True: one a core + 4")
    idempotent: bool | None = Field(None, description="overrides what `@requests(idempotent=...)` says")
    max_queue: int = Field(1024, ge=1, description="calls waiting and running at once")
    max_queue_bytes: int = Field(256 * MIB, ge=1, description="bytes of the bodies of those calls")
    grace: float = Field(30.0, ge=0, description="seconds that running calls get when serving ends")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> DeploymentSettings:
        """Settings from keyword arguments.

        Raises:
            DefinitionError: names the wrong option, what was expected, and the nearest option there is.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            option = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(option, cls.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(cls.model_fields)}"
                raise DefinitionError(f"Deployment has no option {option!r}{hint}") from None
            raise DefinitionError(f"Deployment's option {option!r}: {first['msg']}, got {first['input']!r}") from None

    @property
    def threads(self) -> int:
        """How many threads an Executor has."""
        if self.allow_concurrent is True:
            return (os.cpu_count() or 1) + 4
        return max(1, int(self.allow_concurrent))

    def apply_to(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint as these settings change it."""
        if self.idempotent is None or self.idempotent == endpoint.idempotent:
            return endpoint
        return replace(endpoint, idempotent=self.idempotent)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        body: bytes of a request's body.
        docs: documents in a request.
        depth: how deep JSON may nest.
        stream_idle: seconds without an event after which a stream gets a heartbeat comment.
    """

    body: int = 64 * MIB
    docs: int = 10_000
    depth: int = 64
    stream_idle: float = 15.0
