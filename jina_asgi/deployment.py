"""Deployment: an Executor and its options, ready to mount or to call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jina_asgi.assembly import assemble, assemble_pool, batches
from jina_asgi.config import Named, resolved
from jina_asgi.errors import DefinitionError
from jina_asgi.executor import Executor
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.serving import Served
from jina_asgi.settings import DeploymentSettings, ServingSettings


class Deployment(Served):
    """One Executor, its options, and the Runner made of them.

    Mount it (`mount(app, "/lm", Deployment(uses=Model))`), or use it with no server at all:

        async with Deployment(uses=Model) as model:
            docs = await model.call("/encode", [Text(text="hi")])

    Args:
        uses: the Executor class, its import path ("package.module.Class"), its name where `py_modules` has it, the path
            of its YAML ("config.yml"), or what such a YAML holds. In a pool of replicas a class that is named is imported
            by them alone, and the endpoints are known once one of them has loaded. None: it is `external`.
        folder: what relative paths start from; None: the working directory.
        options: as in `DeploymentSettings`: `name`, `uses_with` (what `__init__` is given), `uses_requests`,
            `uses_metas`, `workspace`, `allow_concurrent`, `idempotent`, `max_queue`, `max_queue_bytes`, `grace`;
            `shards`, and for these `polling` ("ANY", "ALL", or one of them by endpoint) and `no_reduce`;
            `replicas`, and for these `placement`, `env`, `devices`, `startup_timeout`, `heartbeat`, `max_requests`,
            `max_rss`.

    Raises:
        DefinitionError: an option that does not exist or does not fit; it names the nearest one.
    """

    def __init__(
        self,
        uses: type[Executor] | str | Mapping[str, Any] | None = None,
        *,
        folder: Path | None = None,
        **options: Any,
    ) -> None:
        named: Named | None = None
        if not options.get("external"):
            named, options = resolved(uses, options, folder)
        self.uses, self.settings = uses, DeploymentSettings.of(options)
        self._named, self.runner = named, self._assembled(named)
        super().__init__()

    def _assembled(self, uses: Named | None) -> ObserveRunner:
        return assemble(uses, self.settings)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def serving(self) -> ServingSettings:
        return self.settings

    @property
    def grace(self) -> float:
        return self.settings.grace

    @property
    def batched(self) -> list[str]:
        """The endpoints that are batched, where the class is at hand."""
        return [] if self._named is None else batches(self._named, self.settings)


class ReplicaPool(Deployment):
    """A Deployment whose replicas are kept by this process itself, for a program that is one process.

    A server with several workers wants `Deployment(replicas=...)`: one pool for all of them.
    """

    def _assembled(self, uses: Named | None) -> ObserveRunner:
        if uses is None:
            raise DefinitionError("ReplicaPool keeps replicas itself; what is external is a Deployment")
        return assemble_pool(uses, self.settings)
