"""The Executors before and after a Deployment's shards (`uses_before`, `uses_after`): classes and options.

They run where the Deployment's own Executor does, once for all shards. Options that belong to the class of `uses`, such
as `uses_with`, do not apply to them: they have the `with` of their own YAML.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from jina_asgi.config.executor import Named, resolved
from jina_asgi.config.reading import Reading, opened
from jina_asgi.errors import DefinitionError
from jina_asgi.executors.import_path import is_base
from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.document import Document
from jina_asgi.settings.jina_mode import as_jina

logger = logging.getLogger("jina_asgi")

#: Options of a Deployment that also apply to the Executors around its shards, if they are set.
_SHARED = (
    "py_modules",
    "extra_search_paths",
    "workspace",
    "allow_concurrent",
    "idempotent",
    "max_queue",
    "max_queue_bytes",
    "grace",
    "env",
    "startup_timeout",
    "heartbeat",
    "abandoned_timeout",
    "max_requests",
    "max_rss",
)
#: Options that apply to them in Jina.
_SHARED_IN_JINA = ("uses_with", "uses_metas")


@dataclass(frozen=True, slots=True)
class HeadExecutor:
    """One of these Executors: its class and its own settings."""

    uses: Named
    settings: DeploymentSettings


def head_executors_of(settings: DeploymentSettings, reading: Reading) -> dict[str, HeadExecutor]:
    """The Executors around the shards, by the option that names each.

    Raises:
        DefinitionError: an option names no Executor, or there are no shards to run before or after. In a program
            written for Jina the latter is only logged, as it has no effect there.
    """
    named = {part: uses for part in AROUND if (uses := getattr(settings, part)) is not None and not is_base(uses)}
    if named and (why := _why_not(settings)):
        message = f"{settings.name}: {next(iter(named))!r} {why}"
        if not as_jina():
            raise DefinitionError(message)
        logger.warning("%s; it is ignored, as in Jina", message)
        return {}
    return {part: _one(part, uses, settings, reading) for part, uses in named.items()}


def _why_not(settings: DeploymentSettings) -> str:
    if settings.external:
        return (
            "is an option of the server at its host, which runs its own; leave it out where the Deployment is external"
        )
    if settings.shards == 1:
        return (
            "runs before or after several shards: expected shards=2 or more, got shards=1; in front of one Executor, or"
            " behind it, put a node of a Flow"
        )
    return ""


def _one(part: str, uses: Any, settings: DeploymentSettings, reading: Reading) -> HeadExecutor:
    shared = (*_SHARED, *(_SHARED_IN_JINA if as_jina() else ()))
    options = {name: getattr(settings, name) for name in shared if name in settings.model_fields_set}
    options |= {"name": f"{settings.name}-{part}", "placement": "pool" if settings.pooled else "worker"}
    try:
        found = opened(uses, options, reading)
        if isinstance(found, Document) and found.data.get("jtype") == "Deployment":
            raise DefinitionError(f"{found.where(('jtype',))}: {part!r}: expected an Executor, got a Deployment")
        named, options = resolved(found, options, reading)
        return HeadExecutor(named, DeploymentSettings.of(options))
    except DefinitionError as error:
        raise DefinitionError(error.message.replace("uses=", f"{part}=", 1)) from error
