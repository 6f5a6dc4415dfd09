"""Builds the pool of a Deployment's replica processes, for the process that supervises them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jina_asgi.errors import DefinitionError
from jina_asgi.errors.load_failure import is_permanent
from jina_asgi.executors.import_path import Uses
from jina_asgi.observability.switch import SWITCH
from jina_asgi.processes.devices import ROUND_ROBIN, SLOT, VARIABLE, WORKERS, environment_of, visible_devices
from jina_asgi.processes.logs import LogConfig
from jina_asgi.processes.replica_process import ReplicaProcess
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.pool._restarts import Restarts
from jina_asgi.runners.pool.runner import PoolRunner
from jina_asgi.runners.pool.supervisor import ReplicaSupervisor
from jina_asgi.settings import DeploymentSettings, ServingSettings
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.types import Endpoint

#: Options of a Deployment that concern its pool, not a replica.
_POOL_OPTIONS = {"placement", "env", "devices", "startup_timeout", "heartbeat", "max_requests", "max_rss"}
#: Options of a Deployment that concern the server, not the pool.
SERVER_OPTIONS = {
    *ServingSettings.model_fields,
    *MetricsSettings.model_fields,
    "py_modules",
    "extra_search_paths",
    "timeout_send",
    "external",
    "tls",
}


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: the Executor class, its Deployment's options, the module search path, the logging configuration."""

    uses: Uses
    options: dict[str, Any]
    replica: int
    path: list[str]
    logs: LogConfig = LogConfig()
    figures: str = ""  # the folder for its metrics

    def dumps(self) -> bytes:
        """Encodes it as msgpack.

        Raises:
            DefinitionError: an option cannot be sent to another process.
        """
        return encoded(self, self.uses)

    @classmethod
    def loads(cls, raw: bytes) -> ReplicaSpec:
        return msgspec.msgpack.decode(raw, type=cls)


def encoded(spec: msgspec.Struct, uses: Uses | None) -> bytes:
    """Encodes what another process is given as msgpack.

    Raises:
        DefinitionError: an option cannot be sent to another process.
    """
    try:
        return msgspec.msgpack.encode(spec)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DefinitionError(
            f"the options of {uses} cannot be given to another process: expected plain data "
            f"(numbers, text, bytes, lists, dicts): {error}"
        ) from error


def replica_options(settings: DeploymentSettings) -> dict[str, Any]:
    """The options of a Deployment that are sent to a replica: those that were set.

    Raises:
        DefinitionError: a value cannot be sent to another process, or would arrive there as another type.
    """
    _check(settings.uses_with, "uses_with")
    _check(settings.uses_metas, "uses_metas")
    return settings.model_dump(exclude_unset=True, exclude=_POOL_OPTIONS | SERVER_OPTIONS)


def _check(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif not (value is None or isinstance(value, bool | int | float | str | bytes)):
        raise DefinitionError(
            f"{where} holds a {type(value).__name__}, which cannot be given to another process, as replicas need;"
            " expected plain data (numbers, text, bytes, lists, dicts)"
        )


#: Environment variables that are not passed on to replicas: secrets, and settings of the supervising process.
_WITHHELD = ("JINA_ASGI_POOL", "JINA_AUTH_TOKEN", "JINA_ASGI_HUB_TOKEN", SLOT, WORKERS)


def process_pool(
    uses: Uses,
    settings: DeploymentSettings,
    *,
    path: Sequence[str],
    endpoints: Mapping[str, Endpoint] | None,
    again: Callable[[Endpoint], bool],
    changed: Callable[[], None] = lambda: None,
) -> PoolRunner:
    """Builds the Runner over `settings.replicas` processes.

    Args:
        uses: the Executor class.
        settings: the Deployment's settings.
        path: the module search path of the replicas.
        endpoints: the endpoints that they must serve; None: those that the first replica reports.
        again: whether a call that had begun may be run again when its replica died.
        changed: called when replicas start or end.

    Raises:
        DefinitionError: an option cannot be sent to another process, or names a device that does not exist.
    """
    options = replica_options(settings)
    specs = [ReplicaSpec(uses=uses, options=options, replica=i, path=[*path]) for i in range(settings.replicas)]
    specs[0].dumps()  # raises at once for options that cannot be sent
    environments = _environments(settings)

    def make(index: int) -> ReplicaProcess:
        logs = LogConfig.current()
        logs = msgspec.structs.replace(logs, mark=secrets.token_hex(8) if logs.is_json else "")
        return ReplicaProcess(
            f"{settings.name}/rep-{index}",
            msgspec.structs.replace(specs[index], logs=logs, figures=SWITCH.folder).dumps(),
            environments[index],
            endpoints=endpoints,
            startup_timeout=settings.startup_timeout,
            mark=logs.mark,
        )

    restarts = Restarts()
    supervisors = [
        ReplicaSupervisor(
            index,
            make,
            restarts,
            heartbeat=settings.heartbeat,
            max_requests=settings.max_requests,
            max_rss=settings.max_rss,
            grace=settings.grace,
            is_permanent=is_permanent,
        )
        for index in range(settings.replicas)
    ]
    return PoolRunner(
        settings.name,
        supervisors,
        restarts,
        endpoints=endpoints,
        max_busy=settings.threads + 1,
        may_retry=again,
        admission=Admission(settings.max_queue, settings.max_queue_bytes),
        grace=settings.grace,
        on_change=changed,
    )


def _environments(settings: DeploymentSettings) -> list[dict[str, str]]:
    """The environment of each replica, with its device set before it imports anything."""
    inherited = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
    requested = settings.env.get(VARIABLE, inherited.get(VARIABLE, ""))
    visible = visible_devices() if settings.devices is not None or requested.startswith(ROUND_ROBIN) else []
    made = [
        {**inherited, **environment_of(i, settings.env, settings.devices, visible, inherited=inherited.get(VARIABLE))}
        for i in range(settings.replicas)
    ]
    ours = str(Path(__file__).parents[2])  # the folder of this package
    return [{**each, "PYTHONPATH": os.pathsep.join(filter(None, [each.get("PYTHONPATH"), ours]))} for each in made]
