"""Deployment: an Executor and its options, ready to mount or to call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, Unpack

from jina_asgi.errors import DefinitionError
from jina_asgi.executors.batching import batching_of
from jina_asgi.executors.executor import Executor, bind, make
from jina_asgi.executors.import_path import Uses, is_base
from jina_asgi.runners.wrappers import ObserveRunner
from jina_asgi.serving.assembly import assemble, assemble_pool, batches
from jina_asgi.serving.config.executor import Named, head_executors_of, resolved
from jina_asgi.serving.config.models import check_options, given, made, unwrapped
from jina_asgi.serving.config.reading import Reading, is_yaml, overridden, placed, written
from jina_asgi.serving.configured import Configured
from jina_asgi.settings import AROUND, DeploymentSettings, ServingSettings
from jina_asgi.settings.document import Document
from jina_asgi.settings.metrics import MetricsSettings
from jina_asgi.settings.options import DeploymentOptions
from jina_asgi.settings.tracing import TracingSettings


class Deployment(Configured):
    """One Executor, its options, and the Runner made of them.

    Mount it (`mount(app, "/lm", Deployment(uses=Model))`), or use it without a server:

        async with Deployment(uses=Model) as model:
            docs = await model.call("/encode", [Text(text="hi")])

    Args:
        uses: the Executor class, its import path ("package.module.Class"), its name if `py_modules` has it, the path of
            its YAML ("config.yml"), or the content of such a YAML; also the YAML of a Deployment, whose options these
            options override. In a pool only the replicas import a class that is given by name, and the endpoints are known
            when one of them has loaded. None: it is `external`; in a program written for Jina it otherwise returns its
            documents unchanged.
        reading: how YAML is read, and where relative paths start; set by `load_config`.
        options: as in `DeploymentSettings`: `name`, `uses_with` (arguments of `__init__`), `uses_requests`,
            `uses_metas`, `workspace`, `allow_concurrent`, `idempotent`, `max_queue`, `max_queue_bytes`, `grace`;
            `shards`, and for these `polling` ("ANY", "ALL", or one of them by endpoint), `no_reduce`, `uses_before` and
            `uses_after` (Executors that run before and after them, each named as in `uses`);
            `replicas`, and for these `placement`, `env`, `devices`, `startup_timeout`, `heartbeat`, `max_requests`,
            `max_rss`.

    Raises:
        DefinitionError: an unknown option (the message names the nearest), or an invalid value.
    """

    def __init__(
        self,
        uses: type[Executor] | str | os.PathLike[str] | Mapping[str, Any] | Document | None = None,
        *,
        reading: Reading | None = None,
        **options: Unpack[DeploymentOptions],
    ) -> None:
        uses, given, self._reading = unwrapped(uses, dict(options), reading or Reading())
        self._uses, named = uses, None
        if not given.get("external"):
            named, given = resolved(uses, given, self._reading)
        self.settings = DeploymentSettings.of(given)
        self._named, self._around = named, head_executors_of(self.settings, self._reading)
        self.runner = self._assembled(named)
        super().__init__()

    @classmethod
    def _of_document(cls, found: Document, overrides: Mapping[str, Any], reading: Reading) -> Self | None:
        if found.data.get("jtype", "Deployment") != "Deployment":
            found.complain(("jtype",), f"expected 'jtype: Deployment', got {found.data['jtype']!r}")
        uses, options = given(found, ())
        options = overridden(options, overrides)
        uses = options.pop("uses", uses)
        before = len(found.problems)
        check_options(found, (), DeploymentSettings, options)
        if uses is None and not options.get("external") and not is_base(uses):
            found.complain((), "expected 'uses', the Executor")
        if len(found.problems) > before:
            return None
        return made(found, (), lambda: cls(uses, reading=reading, **options))

    @property
    def label(self) -> str:
        uses = self.uses
        if isinstance(uses, type):
            return uses.__name__
        named = uses.get("jtype") if isinstance(uses, Mapping) else uses
        return str(named or self.settings.host)

    @property
    def uses(self) -> Any:
        """The argument `uses`."""
        return self._uses.data if isinstance(self._uses, Document) else self._uses

    def _as_document(self, to: Path | None) -> dict[str, Any]:
        return {"jtype": "Deployment", "with": self.described(to)}

    def described(self, to: Path | None = None) -> dict[str, Any]:
        """`uses` and the options that were set, as plain data; files below the folder `to` are written relative to it.

        Raises:
            DefinitionError: as `save_config`.
        """
        options = self.settings.model_dump(mode="json", exclude_unset=True)
        start = self._reading.start
        if isinstance(modules := options.get("py_modules"), str):
            options["py_modules"] = [modules]
        for name in ("py_modules", "extra_search_paths"):
            if name in options:
                options[name] = [placed(file, start, to) for file in options[name]]
        named = {"uses": self._uses, **{name: getattr(self.settings, name) for name in AROUND}}
        said = {name: self._described_uses(uses, to) for name, uses in named.items() if uses is not None}
        return {**said, **options}

    def _described_uses(self, uses: Any, to: Path | None) -> Any:
        if isinstance(uses, type):
            return Uses.of(uses).described()
        if isinstance(uses, Document):
            data = _with_placed_modules(uses.data, uses.folder, to)
            metas = data.get("metas")
            return {**data, "metas": _with_placed_modules(metas, uses.folder, to)} if metas else data
        return placed(str(uses), self._reading.start, to) if is_yaml(uses) else uses

    def _assembled(self, uses: Named | None) -> ObserveRunner:
        return assemble(uses, self.settings, self._around)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def serving(self) -> ServingSettings:
        return self.settings

    @property
    def tracing(self) -> TracingSettings:
        return self.settings

    @property
    def metrics(self) -> MetricsSettings:
        return self.settings

    @property
    def grace(self) -> float:
        return self.settings.grace

    @property
    def batched(self) -> list[str]:
        """The batched endpoints, if the class is available."""
        named = [] if self._named is None else [(self._named, self.settings)]
        around = [(one.uses, one.settings) for one in self._around.values()]
        return [name for uses, settings in (*named, *around) for name in batches(uses, settings)]


def _with_placed_modules(said: Mapping[str, Any], folder: Path, to: Path | None) -> dict[str, Any]:
    """A part of an Executor's YAML, with the paths of its `py_modules` as a YAML in another folder needs them."""
    modules = said.get("py_modules") or []
    listed = [modules] if isinstance(modules, str) else modules
    return {**said, "py_modules": [placed(file, folder, to) for file in listed]} if listed else dict(said)


class ReplicaPool(Deployment):
    """A Deployment whose replicas this process supervises itself, for a program of one process.

    For a server with several workers use `Deployment(replicas=...)`: one pool for all of them.
    """

    def _assembled(self, uses: Named | None) -> ObserveRunner:
        if uses is None:
            raise DefinitionError(
                "ReplicaPool supervises replicas itself; use Deployment(external=True) for a server elsewhere"
            )
        return assemble_pool(uses, self.settings)


#: The values of an Executor's `metas` that were not set.
_NOTHING = (None, "")


class Yaml:
    """Implements `Executor.load_config`, `Executor.save_config` and `Executor.serve`."""

    def load(self, base: type[Executor], source: Any, options: Mapping[str, Any], **reading: Any) -> Executor:
        named, chosen = resolved(source, options, Reading(**reading))
        cls = named.load() if isinstance(named, Uses) else named
        if not issubclass(cls, base):
            raise DefinitionError(f"{base.__name__}.load_config: expected a class derived from it, got {cls.__name__}")
        settings = DeploymentSettings.of(chosen)
        requests = settings.uses_requests
        batching_of(cls, bind(cls, requests), settings.uses_dynamic_batching)  # raises for invalid options
        return make(cls, settings.uses_with, metas=settings.uses_metas, requests=requests)

    def serve(self, cls: type[Executor], options: Mapping[str, Any]) -> None:
        """Serve an Executor as a Deployment until it is ended; `stop_event` ends it too."""
        options = dict(options)
        stop_event = options.pop("stop_event", None)
        with Deployment(uses=cls, **options) as deployment:
            deployment.block(stop_event)

    def save(self, executor: Executor, path: str | Path | None) -> str:
        cls = type(executor)
        named = Uses.of(cls).described()
        data: dict[str, Any] = {"jtype": named} if isinstance(named, str) else dict(named)
        for name, value in executor.made_with.items():
            if isinstance(value, type):
                raise DefinitionError(f"{cls.__name__}({name}=...): YAML cannot hold what is of {value.__name__}")
        parts = {
            "with": dict(executor.made_with),
            "metas": {
                name: value
                for name, value in vars(executor.metas).items()
                if value not in _NOTHING and (name, value) != ("name", cls.__name__)
            },
            "requests": {
                endpoint: method.attribute
                for endpoint, method in executor.requests.items()
                if bind(cls).get(endpoint) != method
            },
        }
        return written({**data, **{key: part for key, part in parts.items() if part}}, path)
