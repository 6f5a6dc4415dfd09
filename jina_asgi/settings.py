"""The options of a Deployment and of a mounted application, each declared once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jina_asgi.errors import DefinitionError
from jina_asgi.types import Endpoint

MIB = 2**20
Auth = Callable[[Mapping[str, str], str], Awaitable[Any]]


class _Settings(BaseModel):
    """Options given as keyword arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Whose options these are, for messages.
    owner: ClassVar[str]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Settings from keyword arguments.

        Raises:
            DefinitionError: names the wrong option, what was expected, and the nearest option there is.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            first, *_ = errors = error.errors()
            option = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(option, cls.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(cls.model_fields)}"
                raise DefinitionError(f"{cls.owner} has no option {option!r}{hint}") from None
            wanted = " or ".join(entry["msg"] for entry in errors if entry["loc"][0] == option)
            raise DefinitionError(f"{cls.owner}'s option {option!r}: {wanted}, got {first['input']!r}") from None


class DeploymentSettings(_Settings):
    """The options of one Deployment. Names that Jina has keep its meaning."""

    owner = "Deployment"

    name: str = Field("executor", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")
    uses_with: dict[str, Any] = Field({}, repr=False)  # it may hold secrets
    uses_metas: dict[str, Any] = {}
    uses_requests: dict[str, str] = {}
    workspace: str | None = None
    allow_concurrent: bool | int = Field(False, ge=0, description="threads for sync endpoints; True: one a core + 4")
    idempotent: bool | None = Field(None, description="overrides what `@requests(idempotent=...)` says")
    max_queue: int = Field(1024, ge=1, description="calls waiting and running at once")
    max_queue_bytes: int = Field(256 * MIB, ge=1, description="bytes of the bodies of those calls")
    grace: float = Field(30.0, ge=0, description="seconds that running calls get when serving ends")

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

    Raises:
        DefinitionError: a limit that is no number above zero.
    """

    body: int = 64 * MIB
    docs: int = 10_000
    depth: int = 64
    stream_idle: float = 15.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name != "stream_idle"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                kind = "whole number" if whole else "number"
                raise DefinitionError(f"Limits({field.name}={value!r}): expected a {kind} above zero")


class AppSettings(_Settings):
    """The options of a JinaASGI.

    Attributes:
        auth: `async (headers, endpoint) -> identity or None`; None is answered by 401, and an HTTPException of
            Starlette's by what it says. It covers every route but `/`, `/-/live` and `/-/ready`, before the body is
            read, and its answer is the Executor's `context.identity`. For `POST /post` it is asked about "/post",
            then about the endpoint that the body names.
        limits: bytes, docs and depth of one request.
        cors: allow every origin (or the origins in a list); False: leave CORS to the host.
        startup_wait: seconds that a call waits for loading before it is answered by 503.
        wait_ready: startup waits until everything has loaded, and fails where loading does.
        expose_errors: tell clients an Executor's own exceptions (for development).
        title, description, version: for the OpenAPI document.
    """

    owner = "JinaASGI"

    auth: Auth | None = Field(None, repr=False)
    limits: Annotated[Limits, BeforeValidator(lambda value: Limits() if value is None else value)] = Limits()
    cors: bool | list[str] = False
    startup_wait: float = Field(10.0, ge=0)
    wait_ready: bool = False
    expose_errors: bool = False
    title: str = "jina_asgi"
    description: str = ""
    version: str = "1"
