"""The options of a Deployment, and of a Flow for its nodes. Names that Jina has keep its meaning."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, field_validator

from jina_asgi.settings.base import MIB
from jina_asgi.settings.document import Document
from jina_asgi.settings.jina_mode import as_jina
from jina_asgi.settings.jina_options import translated
from jina_asgi.settings.serving import ServingSettings
from jina_asgi.types import Endpoint

#: A number stands for its digits, as YAML writes `OMP_NUM_THREADS: 1`.
Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value, json_schema_input_type=Any)
]


#: The options that name an Executor which runs before the shards, and one that runs after them.
AROUND = ("uses_before", "uses_after")


def _executor(value: Any) -> Any:
    """A value that may name an Executor, as it is; what it names is looked up by the Deployment."""
    if isinstance(value, type | str | os.PathLike | Mapping | Document):
        return value
    raise ValueError("expected an Executor class, its import path, or its YAML")


#: What names an Executor: a class, an import path, the path of its YAML, or what such a YAML holds.
ExecutorName = Annotated[type | str | dict[str, Any] | None, PlainValidator(_executor)]


class DeploymentSettings(ServingSettings):
    """The options of one Deployment. Names that Jina has keep its meaning."""

    owner = "Deployment"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """As `Settings.of`; of Jina's options those that change nothing here are named in the log, and left out."""
        return super().of(translated(options, cls.owner, cls.model_fields))

    @classmethod
    def mistakes(cls, options: Mapping[str, Any]) -> list[tuple[str, str]]:
        """As `Settings.mistakes`."""
        return super().mistakes(translated(options, cls.owner, cls.model_fields))

    name: str = Field("executor", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$", description="in figures and logs")
    uses_with: dict[str, Any] = Field({}, repr=False, description="what its `__init__` is given")  # it may hold secrets
    uses_metas: dict[str, Any] = Field({}, description="its `metas`: name, description, workspace")
    uses_requests: dict[str, str] = Field({}, description="endpoints, and the methods that answer them")
    py_modules: str | list[str] = Field([], description="files or modules that have the class of `uses`")
    extra_search_paths: list[str] = Field([], description="where files are looked for, too")
    workspace: str | None = Field(None, description="the folder below which it may keep files")
    allow_concurrent: bool | int = Field(False, ge=0, description="threads for sync endpoints; True: one a core + 4")
    uses_dynamic_batching: dict[str, dict[str, Any]] = Field({}, description="by endpoint or method name")
    timeout_send: float | None = Field(None, ge=-1, description="milliseconds that a call may take; -1: any time")
    external: bool = Field(False, description="it runs elsewhere, at `host` and `port`, and is asked there")
    tls: bool = Field(False, description="what runs elsewhere is asked with encryption")
    verify: str | None = Field(None, description="over gRPC: who signs the certificate of what runs elsewhere, in PEM")
    grpc_metadata: dict[str, str] = Field({}, repr=False, description="sent with every call to what runs elsewhere")
    grpc_channel_options: dict[str, Any] = Field({}, description="gRPC's own for asking what runs elsewhere")
    idempotent: bool | None = Field(None, description="overrides what `@requests(idempotent=...)` says")
    max_queue: int = Field(1024, ge=1, description="calls waiting and running at once")
    max_queue_bytes: int = Field(256 * MIB, ge=1, description="bytes of the bodies of those calls")
    grace: float = Field(30.0, ge=0, description="seconds that running calls get when serving ends")
    shards: int = Field(1, ge=1, le=1024, description="Executors that each have a part of the data")
    polling: str | dict[str, str] = Field("ANY", description="which shards a call goes to: ANY, ALL, or by endpoint")
    no_reduce: bool = Field(False, description="answers of all shards, or of several needs, are not merged")
    uses_before: ExecutorName = Field(None, exclude=True, description="an Executor that runs before several shards")
    uses_after: ExecutorName = Field(
        None, exclude=True, description="an Executor that is given the answers of all shards"
    )
    shard_id: int = Field(-1, ge=-1, description="which of the shards this is; -1: all of them")
    replicas: int = Field(1, ge=1, le=1024, description="processes that each have the Executor")
    placement: Literal["worker", "pool"] | None = Field(None, description='by default "pool" where replicas are given')
    env: dict[str, Text] = Field({}, repr=False, description="environment of the replicas")  # it may hold secrets
    devices: list[Any] | None = Field(None, description="a device, or a list of devices, for each replica in turn")
    startup_timeout: float = Field(120.0, gt=0, description="seconds that a replica may take to load")
    heartbeat: float = Field(10.0, gt=0, description="seconds without a sign of life after which a replica is killed")
    abandoned_timeout: float = Field(
        60.0, gt=0, description="seconds that all threads of a replica may stay in calls that were given up"
    )
    max_requests: int = Field(0, ge=0, description="calls after which a replica is replaced; 0: never")
    max_rss: int = Field(0, ge=0, description="bytes of memory above which a replica is replaced; 0: never")

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take; None: any time."""
        return None if self.timeout_send is None or self.timeout_send < 0 else self.timeout_send / 1000

    @property
    def pooled(self) -> bool:
        """Whether the Executor runs in processes of its own: several, or one with an environment of its own."""
        if self.placement is not None:
            return self.placement == "pool"
        asked = {"replicas", "env", "devices"} & self.model_fields_set
        if asked == {"replicas"} and self.replicas == 1:
            return not as_jina()  # which has 1 as its default
        return bool(asked)

    @field_validator("polling")
    @classmethod
    def _polls(cls, polling: str | dict[str, str]) -> str | dict[str, str]:
        _polled(polling)
        return polling

    def asks_all(self, endpoint: str) -> bool:
        """Whether a call to this endpoint goes to every shard: as `polling` says, else `/search` does."""
        by_endpoint = _polled(self.polling)
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


def _polled(polling: str | Mapping[str, str]) -> Mapping[str, Any]:
    """What `polling` says of each endpoint; of the rest, under "*".

    Raises:
        ValueError: it says something else.
    """
    said: Any = polling
    if isinstance(said, str) and said.strip().startswith("{"):
        try:
            said = json.loads(said)
        except ValueError as error:
            raise ValueError(f"polling={polling!r} is no JSON: {error}") from None
    by_endpoint = said if isinstance(said, Mapping) else {"*": said}
    if any(str(value).upper() not in ("ANY", "ALL") for value in by_endpoint.values()):
        raise ValueError("expected 'ANY' or 'ALL', or one of them by endpoint")
    return by_endpoint


class FlowSettings(DeploymentSettings):
    """The options of a Flow: its name, and what each of its Executors has that does not say otherwise."""

    owner = "Flow"

    name: str = Field("flow", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$", description="in figures and logs")

    @property
    def defaults(self) -> dict[str, Any]:
        """What was set, for a node's Deployment; the name and how it is served are the Flow's own."""
        own = {"name", *ServingSettings.model_fields}
        return {name: getattr(self, name) for name in self.model_fields_set - own}
