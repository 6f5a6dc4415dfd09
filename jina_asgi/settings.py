"""The options of a Deployment and of a mounted application, each declared once."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jina_asgi.errors import DefinitionError
from jina_asgi.types import Endpoint

MIB = 2**20
#: Stands for a function in settings that crossed to another process.
TOLD = "(told by the caller)"
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
            if not first["loc"]:
                raise DefinitionError(f"{cls.owner}: {first['msg'].removeprefix('Value error, ')}") from None
            option = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(option, cls.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(cls.model_fields)}"
                raise DefinitionError(f"{cls.owner} has no option {option!r}{hint}") from None
            wanted = " or ".join(entry["msg"] for entry in errors if entry["loc"][0] == option)
            raise DefinitionError(f"{cls.owner}'s option {option!r}: {wanted}, got {first['input']!r}") from None


class BatchingSettings(_Settings):
    """How an endpoint batches. Jina's names keep Jina's meaning, as bounds; `timeout` is in milliseconds, as there."""

    owner = "dynamic_batching"

    preferred_batch_size: int = Field(4, ge=1, description="documents in a batch at most")
    timeout: float = Field(10_000, ge=0, description='milliseconds that gather="window" waits for more')
    flush_all: bool = Field(False, description="a batch takes all that waits, however much")
    custom_metric: Callable[[Any], float] | None = Field(None, description="what a document weighs")
    use_custom_metric: bool = Field(
        False, description="preferred_batch_size bounds the weight of a batch, not its size"
    )
    use_dynamic_batching: bool = True
    gather: Literal["idle", "window"] = Field("idle", description="begin when idle; or when full, or the time is up")
    cost: Callable[[Any], float] | str | None = Field(None, description='a function, or a field: "len:text"')
    max_cost: float | None = Field(None, gt=0, description="the cost of a batch at most")
    over_budget: Literal["alone", "refuse"] = Field("alone", description="what becomes of a document over max_cost")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.use_custom_metric and self.custom_metric is None:
            raise ValueError("use_custom_metric needs a custom_metric")
        if (self.max_cost is None) != (self.cost is None):
            raise ValueError("cost and max_cost go together")
        if self.use_custom_metric and self.cost is not None:
            raise ValueError("use_custom_metric and cost are two ways of saying one thing; give one")
        self.cost_function()
        return self

    def cost_function(self) -> Callable[[Any], float] | None:
        """What a document costs; None: one each."""
        if self.use_custom_metric:
            return self.custom_metric
        if not isinstance(self.cost, str):
            return self.cost
        measure, _, path = self.cost.rpartition(":")
        names = path.split(".")
        if measure not in ("", "len") or not all(name.isidentifier() and name[0] != "_" for name in names):
            raise ValueError(f'cost={self.cost!r}: expected a field, such as "tokens", or its length, "len:text"')

        def cost(doc: Any) -> float:
            for name in names:
                doc = doc[name] if isinstance(doc, Mapping) else getattr(doc, name)
            return float(len(doc) if measure else doc)

        return cost

    def described(self) -> dict[str, Any]:
        """These settings as data; in the place of a function stands that its result will be told."""
        functions = {key for key, value in self if callable(value)}
        return {**self.model_dump(exclude=functions), **dict.fromkeys(functions, TOLD)}

    @classmethod
    def of_described(cls, options: Mapping[str, Any]) -> Self:
        """The settings that `described` wrote, for whoever is told what documents cost."""
        return cls.of({key: _told if value == TOLD else value for key, value in options.items()})

    @property
    def needs_class(self) -> bool:
        """Whether what a document costs is told by a function that these described settings do not have."""
        return _told in (self.cost, self.custom_metric)


def _told(doc: Any) -> float:
    raise DefinitionError("what a document costs is told by its caller, who has its class")


class DeploymentSettings(_Settings):
    """The options of one Deployment. Names that Jina has keep its meaning."""

    owner = "Deployment"

    name: str = Field("executor", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")
    uses_with: dict[str, Any] = Field({}, repr=False)  # it may hold secrets
    uses_metas: dict[str, Any] = {}
    uses_requests: dict[str, str] = {}
    workspace: str | None = None
    allow_concurrent: bool | int = Field(False, ge=0, description="threads for sync endpoints; True: one a core + 4")
    uses_dynamic_batching: dict[str, dict[str, Any]] = Field({}, description="by endpoint or method name")
    idempotent: bool | None = Field(None, description="overrides what `@requests(idempotent=...)` says")
    max_queue: int = Field(1024, ge=1, description="calls waiting and running at once")
    max_queue_bytes: int = Field(256 * MIB, ge=1, description="bytes of the bodies of those calls")
    grace: float = Field(30.0, ge=0, description="seconds that running calls get when serving ends")
    shards: int = Field(1, ge=1, description="Executors that each have a part of the data")
    polling: str | dict[str, str] = Field("ANY", description="which shards a call goes to: ANY, ALL, or by endpoint")
    no_reduce: bool = Field(False, description="answers of all shards, or of several needs, are not merged")
    shard_id: int = Field(-1, ge=-1, description="which of the shards this is; -1: all of them")
    replicas: int = Field(1, ge=1, description="processes that each have the Executor")
    placement: Literal["worker", "pool"] | None = Field(None, description='by default "pool" where replicas are given')
    env: dict[str, str] = Field({}, repr=False, description="environment of the replicas")  # it may hold secrets
    devices: list[Any] | None = Field(None, description="a device, or a list of devices, for each replica in turn")
    startup_timeout: float = Field(120.0, gt=0, description="seconds that a replica may take to load")
    heartbeat: float = Field(10.0, gt=0, description="seconds without a sign of life after which a replica is killed")
    max_requests: int = Field(0, ge=0, description="calls after which a replica is replaced; 0: never")
    max_rss: int = Field(0, ge=0, description="bytes of memory above which a replica is replaced; 0: never")

    @property
    def pooled(self) -> bool:
        """Whether the Executor runs in processes of its own."""
        if self.placement is None:
            return "replicas" in self.model_fields_set
        return self.placement == "pool"

    @model_validator(mode="after")
    def _polls(self) -> Self:
        self.asks_all("/default")
        return self

    def asks_all(self, endpoint: str) -> bool:
        """Whether a call to this endpoint goes to every shard: as `polling` says, else `/search` does."""
        said: Any = self.polling
        if isinstance(said, str) and said.strip().startswith("{"):
            try:
                said = json.loads(said)
            except ValueError as error:
                raise ValueError(f"polling={said!r} is no JSON: {error}") from None
        by_endpoint = said if isinstance(said, Mapping) else {"*": said}
        wrong = [value for value in by_endpoint.values() if str(value).upper() not in ("ANY", "ALL")]
        if wrong:
            raise ValueError(f"polling={self.polling!r}: expected 'ANY' or 'ALL', or one of them by endpoint")
        defaults = {"/search": "ALL", "/index": "ANY"}
        rest = by_endpoint.get("*", "ANY")
        return str(by_endpoint.get(endpoint, defaults.get(endpoint, rest))).upper() == "ALL"

    def of_shard(self, number: int) -> Self:
        """The settings of one shard."""
        return self.model_copy(update={"name": f"{self.name}-shard-{number}", "shard_id": number})

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


class FlowSettings(DeploymentSettings):
    """The options of a Flow: its name, and what each of its Executors has that does not say otherwise."""

    owner = "Flow"

    name: str = Field("flow", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")

    @property
    def defaults(self) -> dict[str, Any]:
        """What was set, for a node's Deployment; the name is the Flow's own."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"name"}}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        body: bytes of a request's body.
        docs: documents in a request.
        depth: how deep JSON may nest.
        stream_idle: seconds without an event after which a stream gets a heartbeat comment, and a WebSocket a ping.
        socket_calls: calls that are open at once on one WebSocket.

    Raises:
        DefinitionError: a limit that is no number above zero.
    """

    body: int = 64 * MIB
    docs: int = 10_000
    depth: int = 64
    stream_idle: float = 15.0
    socket_calls: int = 64

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


class ClientSettings(_Settings):
    """What a Client takes beside its server's address."""

    owner = "Client"
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    headers: dict[str, str] = Field({}, description="sent with every request")
    verify: Any = Field(True, description="how a server's certificate is checked, as httpx takes it: an SSLContext")
    proxy: bool = Field(False, description="go through the proxy that the environment names")
    reuse_session: bool = Field(False, description="Jina's; connections are always kept until close()")
    suppress_root_logging: bool = Field(False, description="Jina's; the root logger is never touched here")
    log_config: Any = Field(None, description="Jina's; the logger is logging.getLogger('jina_asgi')")
