"""The options of the public classes, for type checkers: made by `python -m tests.settings.option_types`.

Meanings and defaults are declared in the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Literal, TypedDict

from jina_asgi.settings.application import GrpcSettings, Limits


class ServingOptions(TypedDict, total=False):
    """How a Deployment or a Flow is served by itself."""

    host: str | list[str]
    port: int | list[int] | None
    protocol: str | list[str]
    title: str
    description: str
    cors: bool | list[str]
    ssl_certfile: str | None
    ssl_keyfile: str | None
    uvicorn_kwargs: Mapping[str, Any]
    reflection: bool
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None
    grpc_server_options: Mapping[str, Any]
    playground: bool
    log_config: str | None
    quiet: bool
    quiet_error: bool
    access_log: bool


class JinaOptions(TypedDict, total=False):
    """Options of Jina's that are named otherwise here, or change nothing."""

    disable_reduce: bool
    ports: int | list[int] | None
    protocols: str | list[str]
    timeout_ready: float
    disable_auto_volume: Any
    docker_kwargs: Any
    entrypoint: Any
    gpus: Any
    volumes: Any
    force_network_mode: Any
    native: Any
    env_from_secret: Any
    image_pull_secrets: Any
    force_update: Any
    install_requirements: Any
    prefer_platform: Any
    metrics_exporter_host: Any
    metrics_exporter_port: Any
    stateful: Any
    raft_configuration: Any
    peer_ports: Any
    provider: Any
    provider_endpoint: Any
    connection_list: Any
    timeout_ctrl: Any
    retries: Any
    prefetch: Any
    include_gateway: Any
    runtime_cls: Any
    pod_role: Any
    uses_before_address: Any
    uses_after_address: Any
    exit_on_exceptions: Any
    output_array_type: Any
    reload: Any
    inspect: Any
    no_debug_endpoints: Any
    no_crud_endpoints: Any
    expose_endpoints: Any
    expose_graphql_endpoint: Any
    jcloud: Any
    proxy: Any
    reuse_session: Any


class NodeOptions(ServingOptions, JinaOptions, total=False):
    """Those of a node of a Flow, beside the arguments of `Flow.add`."""

    tracing: bool
    traces_exporter_host: str | None
    traces_exporter_port: int | None
    metrics: bool
    monitoring: bool
    port_monitoring: int | None
    uses_with: Mapping[str, Any]
    uses_metas: Mapping[str, Any]
    uses_requests: Mapping[str, str]
    py_modules: str | list[str]
    extra_search_paths: list[str]
    workspace: str | None
    allow_concurrent: bool | int
    uses_dynamic_batching: Mapping[str, Mapping[str, Any]]
    timeout_send: float | None
    external: bool
    tls: bool
    verify: str | None
    grpc_metadata: Mapping[str, str]
    grpc_channel_options: Mapping[str, Any]
    idempotent: bool | None
    max_queue: int
    max_queue_bytes: int
    grace: float
    shards: int
    polling: str | Mapping[str, str]
    uses_before: type | str | PathLike[str] | Mapping[str, Any] | None
    uses_after: type | str | PathLike[str] | Mapping[str, Any] | None
    shard_id: int
    replicas: int
    placement: Literal["worker", "pool"] | None
    env: Mapping[str, str | int | float]
    devices: Any
    startup_timeout: float
    heartbeat: float
    abandoned_timeout: float
    max_requests: int
    max_rss: int


class DeploymentOptions(NodeOptions, total=False):
    """Those of a Deployment, and of a Flow for all its nodes."""

    name: str
    no_reduce: bool


class BatchingOptions(TypedDict, total=False):
    """Those of dynamic batching."""

    preferred_batch_size: int
    timeout: float
    flush_all: bool
    custom_metric: Callable[[Any], float] | None
    use_custom_metric: bool
    use_dynamic_batching: bool
    gather: Literal["idle", "window"]
    cost: Callable[[Any], float] | str | None
    max_cost: float | None
    over_budget: Literal["alone", "refuse"]
    padded: bool
    max_padding: float | None
    buckets: list[float] | None
    bucket_wait: float
    priority: Callable[[Any], int] | str | None
    priority_ageing: float
    tenant: Callable[[Any], str] | str | None
    tenant_weights: Mapping[str, float]
    mix_tenants: bool
    single_flight: bool
    latency_target: float | None
    prefetch: int


class AppOptions(TypedDict, total=False):
    """Those of a JinaASGI."""

    metrics: bool
    monitoring: bool
    port_monitoring: int | None
    tracing: bool
    traces_exporter_host: str | None
    traces_exporter_port: int | None
    auth: Callable[[Mapping[str, str], str], Any] | None
    limits: Limits | None
    cors: bool | list[str]
    startup_wait: float
    wait_ready: bool
    expose_errors: bool
    playground: bool
    title: str
    description: str
    version: str
    grpc: str | Mapping[str, Any] | GrpcSettings | None
    access_log: bool
    registry: Any


class SidecarOptions(AppOptions, total=False):
    """Those of a GRPCSidecar."""

    reflection: bool
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_clients: str | None
    insecure_bind: bool
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None
    shared: bool
    required: bool
    options: Mapping[str, Any]


class ClientOptions(TypedDict, total=False):
    """Those of a Client, beside where its server is."""

    tracing: bool
    traces_exporter_host: str | None
    traces_exporter_port: int | None
    headers: Mapping[str, str]
    verify: Any
    cert: tuple[str, str] | None
    compression: Literal["NoCompression", "Deflate", "Gzip"] | None
    grpc_channel_options: Mapping[str, Any]
    proxy: bool
    reuse_session: bool
    suppress_root_logging: bool
    log_config: Any
