"""What a replica's process is told on its standard input, where no other process can read it."""

from __future__ import annotations

from typing import Any

import msgspec

from jina_asgi.errors import DefinitionError
from jina_asgi.settings import DeploymentSettings
from jina_asgi.uses import Uses

#: Options of a Deployment that concern whoever keeps the replicas, not a replica.
_KEEPERS = {"placement", "env", "devices", "startup_timeout", "heartbeat", "max_requests", "max_rss"}


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: the Executor's class, its Deployment's options, and where modules are looked for."""

    uses: Uses
    options: dict[str, Any]
    replica: int
    path: list[str]

    def dumps(self) -> bytes:
        """This as msgpack.

        Raises:
            DefinitionError: an option holds what another process cannot be given.
        """
        try:
            return msgspec.msgpack.encode(self)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DefinitionError(
                f"the options of {self.uses} cannot be given to another process: expected plain data "
                f"(numbers, text, bytes, lists, dicts): {error}"
            ) from error

    @classmethod
    def loads(cls, raw: bytes) -> ReplicaSpec:
        return msgspec.msgpack.decode(raw, type=cls)


def replica_options(settings: DeploymentSettings) -> dict[str, Any]:
    """The options that a replica is given: those that were set."""
    return settings.model_dump(exclude_unset=True, exclude=_KEEPERS)
