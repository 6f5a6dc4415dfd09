"""Makes an Executor of its YAML, and writes it as YAML, without a Deployment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jina_asgi.config.executor import resolved
from jina_asgi.config.reading import Reading, written
from jina_asgi.errors import DefinitionError
from jina_asgi.executors.batching import batching_of
from jina_asgi.executors.executor import Executor, bind, make
from jina_asgi.executors.import_path import Uses
from jina_asgi.serving.deployment import Deployment
from jina_asgi.settings import DeploymentSettings

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
