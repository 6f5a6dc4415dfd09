"""Deployment: an Executor and its options, ready to mount or to call."""

from __future__ import annotations

from typing import Any

from jina_asgi.assembly import assemble, assemble_pool, batches
from jina_asgi.errors import DefinitionError
from jina_asgi.executor import Executor
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.settings import DeploymentSettings
from jina_asgi.source import Source
from jina_asgi.uses import Uses


class Deployment(Source):
    """One Executor, its options, and the Runner made of them.

    Mount it (`mount(app, "/lm", Deployment(uses=Model))`), or use it with no server at all:

        async with Deployment(uses=Model) as model:
            docs = await model.call("/encode", [Text(text="hi")])

    Args:
        uses: the Executor class, its import path ("package.module.Class"), or the path of its YAML ("config.yml"). In a
            pool of replicas a class that is named is imported by them alone, and the endpoints are known once one of
            them has loaded.
        options: as in `DeploymentSettings`: `name`, `uses_with` (what `__init__` is given), `uses_requests`,
            `uses_metas`, `workspace`, `allow_concurrent`, `idempotent`, `max_queue`, `max_queue_bytes`, `grace`;
            `shards`, and for these `polling` ("ANY", "ALL", or one of them by endpoint) and `no_reduce`;
            `replicas`, and for these `placement`, `env`, `devices`, `startup_timeout`, `heartbeat`, `max_requests`,
            `max_rss`.

    Raises:
        DefinitionError: an option that does not exist or does not fit; it names the nearest one.
    """

    def __init__(self, uses: type[Executor] | str, **options: Any) -> None:
        kind = type(self).__name__
        if not (isinstance(uses, str) or (isinstance(uses, type) and issubclass(uses, Executor))):
            raise DefinitionError(
                f"{kind}(uses={uses!r}): expected a class derived from jina_asgi.Executor, or its import path, or the path of its YAML"
            )
        named: Uses | type[Executor]
        if isinstance(uses, str) and uses.endswith((".yml", ".yaml")):
            from jina_asgi.config import read_executor  # with yaml

            named, options = read_executor(uses, options)
        else:
            named = Uses.at(uses) if isinstance(uses, str) else uses
        self.uses, self.settings = uses, DeploymentSettings.of(options)
        self._named, self.runner = named, self._assembled(named)
        super().__init__()

    def _assembled(self, uses: Uses | type[Executor]) -> ObserveRunner:
        return assemble(uses, self.settings)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def batched(self) -> list[str]:
        """The endpoints that are batched, where the class is at hand."""
        return batches(self._named, self.settings)


class ReplicaPool(Deployment):
    """A Deployment whose replicas are kept by this process itself, for a program that is one process.

    A server with several workers wants `Deployment(replicas=...)`: one pool for all of them.
    """

    def _assembled(self, uses: Uses | type[Executor]) -> ObserveRunner:
        return assemble_pool(uses, self.settings)
