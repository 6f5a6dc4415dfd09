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
from jina_asgi.settings.jina_options import as_jina, translated
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.settings.serving import ServingSettings
from jina_asgi.settings.tracing import TracingSettings
from jina_asgi.types import Endpoint

#: A number is read as its digits, as in YAML's `OMP_NUM_THREADS: 1`.
Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value, json_schema_input_type=Any)
]


#: The options that name an Executor which runs before the shards, and one that runs after them.
AROUND = ("uses_before", "uses_after")


def _executor(value: Any) -> Any:
    """Checks that a value can name an Executor; the Deployment looks it up."""
    if isinstance(value, type | str | os.PathLike | Mapping | Document):
        return value
    raise ValueError("expected an Executor class, its import path, or its YAML")


#: Names an Executor: a class, an import path, the path of its YAML, or the content of such a YAML.
ExecutorName = Annotated[type | str | dict[str, Any] | None, PlainValidator(_executor)]


class DeploymentSettings(MetricsSettings, TracingSettings, ServingSettings):
    """The options of one Deployment. Names that Jina has keep its meaning."""

    # It inherits the options of serving because all options are flat, `port` beside `uses_with`, in Python, in YAML
    # and on the command line. A pydantic class has one table of fields: `Settings` names the nearest option by it, and YAML
    # finds the place of a mistake. Two models would need a second table, of the model that each option belongs to.

    owner = "Deployment"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """As `Settings.of`; Jina's options that have no effect here are logged, and left out."""
        return super().of(translated(options, cls.owner, cls.model_fields))

    @classmethod
    def mistakes(cls, options: Mapping[str, Any]) -> list[tuple[str, str]]:
        """As `Settings.mistakes`."""
        return super().mistakes(translated(options, cls.owner, cls.model_fields))

    name: str = Field(
        "executor", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$", description="its name in metrics and logs"
    )
    uses_with: dict[str, Any] = Field({}, repr=False, description="arguments of its `__init__`")  # it may hold secrets
    uses_metas: dict[str, Any] = Field({}, description="its `metas`: name, description, workspace")
    uses_requests: dict[str, str] = Field({}, description="endpoint names mapped to methods")
    py_modules: str | list[str] = Field([], description="files or modules in which the class of `uses` is found")
    extra_search_paths: list[str] = Field([], description="additional folders in which files are searched")
    workspace: str | None = Field(None, description="the folder in which it may store files")
    allow_concurrent: bool | int = Field(
        False, ge=0, description="threads for sync endpoints; True: number of cores + 4"
    )
    uses_dynamic_batching: dict[str, dict[str, Any]] = Field(
        {}, description="batching options, by endpoint or method name"
    )
    timeout_send: float | None = Field(None, ge=-1, description="time limit of a call, in milliseconds; -1: none")
    external: bool = Field(False, description="it runs elsewhere, at `host` and `port`, and is called there")
    tls: bool = Field(False, description="calls to an external Deployment are encrypted")
    verify: str | None = Field(
        None, description="over gRPC: the CA that signed an external Deployment's certificate, a file in PEM"
    )
    grpc_metadata: dict[str, str] = Field(
        {}, repr=False, description="metadata sent with every call to an external Deployment"
    )
    grpc_channel_options: dict[str, Any] = Field(
        {}, description="additional gRPC channel options for an external Deployment"
    )
    idempotent: bool | None = Field(None, description="overrides `@requests(idempotent=...)`")
    max_queue: int = Field(1024, ge=1, description="most calls that wait or run at the same time")
    max_queue_bytes: int = Field(256 * MIB, ge=1, description="most bytes in the bodies of those calls")
    grace: float = Field(30.0, ge=0, description="seconds that running calls have to finish when serving ends")
    shards: int = Field(1, ge=1, le=1024, description="number of Executors that each hold a part of the data")
    polling: str | dict[str, str] = Field(
        "ANY", description="the shards that a call goes to: ANY, ALL, or one of them by endpoint"
    )
    no_reduce: bool = Field(False, description="answers of several shards, or of several `needs`, are not merged")
    uses_before: ExecutorName = Field(None, exclude=True, description="an Executor that runs before several shards")
    uses_after: ExecutorName = Field(
        None, exclude=True, description="an Executor that receives the answers of all shards"
    )
    shard_id: int = Field(-1, ge=-1, description="the number of this shard; -1: all of them")
    replicas: int = Field(1, ge=1, le=1024, description="number of processes that each run the Executor")
    placement: Literal["worker", "pool"] | None = Field(
        None, description='in the web worker, or in processes of its own; "pool" by default if replicas are set'
    )
    env: dict[str, Text] = Field(
        {}, repr=False, description="environment variables of the replicas"
    )  # it may hold secrets
    devices: list[Any] | None = Field(None, description="the CUDA device, or list of devices, of each replica in turn")
    startup_timeout: float = Field(120.0, gt=0, description="seconds in which a replica has to load")
    heartbeat: float = Field(
        10.0, gt=0, description="seconds without an answer to pings after which a replica is killed"
    )
    abandoned_timeout: float = Field(
        60.0, gt=0, description="seconds after which a replica is replaced if abandoned calls block all its threads"
    )
    max_requests: int = Field(0, ge=0, description="calls after which a replica is replaced; 0: never")
    max_rss: int = Field(0, ge=0, description="bytes of memory above which a replica is replaced; 0: never")

    @property
    def timeout(self) -> float | None:
        """The time limit of a call in seconds; None: no limit."""
        return None if self.timeout_send is None or self.timeout_send < 0 else self.timeout_send / 1000

    @property
    def pooled(self) -> bool:
        """Whether the Executor runs in replica processes rather than in the web worker."""
        if self.placement is not None:
            return self.placement == "pool"
        requested = {"replicas", "env", "devices"} & self.model_fields_set
        if requested == {"replicas"} and self.replicas == 1:
            return not as_jina()  # Jina's own default is 1
        return bool(requested)

    @field_validator("polling")
    @classmethod
    def _polls(cls, polling: str | dict[str, str]) -> str | dict[str, str]:
        _polled(polling)
        return polling

    def polls_all(self, endpoint: str) -> bool:
        """Whether a call to this endpoint goes to every shard: by `polling`, else only `/search` does."""
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
        """Applies these settings to an endpoint."""
        if self.idempotent is None or self.idempotent == endpoint.idempotent:
            return endpoint
        return replace(endpoint, idempotent=self.idempotent)


def _polled(polling: str | Mapping[str, str]) -> Mapping[str, Any]:
    """Reads `polling` by endpoint; "*" stands for the other endpoints.

    Raises:
        ValueError: it has another form.
    """
    parsed: Any = polling
    if isinstance(parsed, str) and parsed.strip().startswith("{"):
        try:
            parsed = json.loads(parsed)
        except ValueError as error:
            raise ValueError(f"polling={polling!r} is no JSON: {error}") from None
    by_endpoint = parsed if isinstance(parsed, Mapping) else {"*": parsed}
    if any(str(value).upper() not in ("ANY", "ALL") for value in by_endpoint.values()):
        raise ValueError("expected 'ANY' or 'ALL', or one of them by endpoint")
    return by_endpoint


class FlowSettings(DeploymentSettings):
    """The options of a Flow: its name, and the defaults for its Executors."""

    owner = "Flow"

    name: str = Field("flow", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$", description="its name in metrics and logs")

    @property
    def defaults(self) -> dict[str, Any]:
        """The options that were set, for a node's Deployment; the name and the serving options are the Flow's own."""
        own = {"name", *ServingSettings.model_fields}
        return {name: getattr(self, name) for name in self.model_fields_set - own}
