"""Deployment: an Executor and its options, ready to mount or to call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from jina_asgi.assembly import assemble, assemble_pool, batches
from jina_asgi.config import Named, check_options, document, given, made, overridden, resolved, written
from jina_asgi.errors import DefinitionError
from jina_asgi.executor import Executor
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.serving import Served
from jina_asgi.settings import DeploymentSettings, ServingSettings
from jina_asgi.uses import Uses

if TYPE_CHECKING:
    from jina_asgi.yaml_files import Document, Key


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

    @classmethod
    def load_config(
        cls,
        source: Any,
        *,
        substitute: bool = True,
        context: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Self:
        """The Deployment of a YAML: `jtype: Deployment`, its options below `with` or beside it.

        Args:
            source: a path, a string of YAML, a mapping or a stream.
            substitute: whether `${{ ENV.X }}`, `${{ CONTEXT.x }}` and `$X` stand for something else.
            context: what `${{ CONTEXT.x }}` finds.
            overrides: options over those of the YAML; `uses_with` and other mappings entry by entry.

        Raises:
            DefinitionError: all that is wrong with it, each with its file, line and column.
        """
        found = document(source, substitute=substitute, context=context)
        if found.data.get("jtype", "Deployment") != "Deployment":
            found.complain(("jtype",), f"expected 'jtype: Deployment', got {found.data['jtype']!r}")
        deployment = cls._of_part(found, (), overrides)
        found.check()
        assert deployment is not None
        return deployment

    @classmethod
    def _of_part(cls, found: Document, key: Key, overrides: Mapping[str, Any]) -> Self | None:
        uses, options = given(found, key)
        options = overridden(options, overrides)
        uses = options.pop("uses", uses)
        before = len(found.problems)
        check_options(found, key, DeploymentSettings, options)
        if uses is None and not options.get("external"):
            found.complain(key, "expected 'uses', the Executor")
        if len(found.problems) > before:
            return None
        return made(found, key, lambda: cls(uses, folder=found.folder, **options))

    def save_config(self, path: str | Path | None = None) -> str:
        """This as YAML that `load_config` reads; written to `path` where one is given.

        Raises:
            DefinitionError: the class cannot be imported again, or an option is no plain data.
        """
        return written({"jtype": "Deployment", "with": self.described()}, path)

    def described(self) -> dict[str, Any]:
        """`uses` and the options that were set, as plain data.

        Raises:
            DefinitionError: as `save_config`.
        """
        uses = self.uses
        if isinstance(uses, type):
            at = Uses.of(uses)
            if at.main:
                raise DefinitionError(
                    f"{uses.__name__} belongs to a program; give it a module of its own to name it in YAML"
                )
            uses = f"{at.module}.{at.name}" if "." not in at.name else f"{at.module}:{at.name}"
        options = self.settings.model_dump(mode="json", exclude_unset=True)
        return {**({} if uses is None else {"uses": uses}), **options}

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
