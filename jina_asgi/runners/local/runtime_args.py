"""The `runtime_args` of an Executor: its name, replica and shard."""

from __future__ import annotations

from typing import Any

from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.jina_mode import as_jina


def runtime_args(settings: DeploymentSettings, replica: int) -> dict[str, Any]:
    """Return the runtime arguments under Jina's names; in a program for Jina with its values of `name` and `shard_id`, too."""
    facts: dict[str, Any] = {
        "name": settings.name,
        "workspace": settings.workspace,
        "shard_id": settings.shard_id,
        "shards": settings.shards,
        "replicas": settings.replicas,
        "allow_concurrent": settings.allow_concurrent,
    }
    if not as_jina():
        return facts
    name = settings.name.removesuffix(f"-shard-{settings.shard_id}")
    shard = f"/shard-{settings.shard_id}" if settings.shards > 1 else ""
    own = f"{name}{shard}/rep-{replica}"
    for part in AROUND:  # which has no replicas
        own = f"{name.removesuffix(f'-{part}')}/{part}-0" if name.endswith(f"-{part}") else own
    return {**facts, "name": own, "shard_id": max(settings.shard_id, 0)}
