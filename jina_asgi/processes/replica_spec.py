"""The specification of a replica, sent on its standard input, where no other process can read it."""

from __future__ import annotations

from typing import Any

import msgspec

from jina_asgi.errors import DefinitionError
from jina_asgi.executors.import_path import Uses
from jina_asgi.processes.log_config import LogConfig
from jina_asgi.settings import DeploymentSettings, ServingSettings

#: Options of a Deployment that concern its pool, not a replica.
_POOL_OPTIONS = {"placement", "env", "devices", "startup_timeout", "heartbeat", "max_requests", "max_rss"}
#: Options of a Deployment that concern the server, not the pool.
SERVER_OPTIONS = {*ServingSettings.model_fields, "py_modules", "extra_search_paths", "timeout_send", "external", "tls"}


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: the Executor class, its Deployment's options, the module search path, the logging configuration."""

    uses: Uses
    options: dict[str, Any]
    replica: int
    path: list[str]
    logs: LogConfig = LogConfig()

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
