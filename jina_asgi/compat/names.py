"""Jina's public names, and where this library has them.

A module of Jina's, its names, and "module:name" for each.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

from jina_asgi.compat import signals
from jina_asgi.settings.jina_options import mark

_EXECUTOR = {
    "BaseExecutor": "jina_asgi.executors.executor:Executor",
    "Executor": "jina_asgi.executors.executor:Executor",
}
_FLOW = {"Flow": "jina_asgi.compat.classes:Flow"}
_ASYNC_FLOW = {"AsyncFlow": "jina_asgi.compat.classes:AsyncFlow"}
_DEPLOYMENT = {"Deployment": "jina_asgi.compat.classes:Deployment"}
_CLIENT = {"Client": "jina_asgi.compat.classes:Client"}
_GATEWAY = {"Gateway": "jina_asgi.compat.classes:Gateway"}
_DECORATORS = {
    "dynamic_batching": "jina_asgi.executors.batching:dynamic_batching",
    "monitor": "jina_asgi.executors.decorators:monitor",
    "requests": "jina_asgi.executors.executor:requests",
}
_RESPONSE = "jina_asgi.clients.responses:Response"
_OURS = (
    "BadClient",
    "BadClientCallback",
    "BadClientInput",
    "BadServer",
    "BaseJinaException",
    "NotSupportedError",
    "PortAlreadyUsed",
)
#: Jina's errors that other classes stand for here.
_IN_PLACE = {
    **dict.fromkeys(("BadConfigSource", "BadDocType", "BadYAMLVersion"), "DefinitionError"),
    **dict.fromkeys(("FlowBuildLevelError", "FlowMissingDeploymentError", "FlowTopologyError"), "DefinitionError"),
    **dict.fromkeys(("EstablishGrpcConnectionError", "InternalNetworkError"), "Unavailable"),
    **dict.fromkeys(("ExecutorError", "ExecutorFailToLoad"), "ExecutorError"),
    "RuntimeFailToStart": "RuntimeFailToStart",
}
_NEVER = (
    "BadImageNameError",
    "BadRequestType",
    "BadServerFlow",
    "DockerVersionError",
    "NoAvailablePortError",
    "NoContainerizedError",
    "RuntimeRunForeverEarlyError",
    "RuntimeTerminated",
)

MODULES: Mapping[str, Mapping[str, str]] = {
    "jina": {
        **_ASYNC_FLOW,
        **_CLIENT,
        **_DEPLOYMENT,
        "Document": "jina_asgi.documents.document_types:BaseDoc",
        "DocumentArray": "jina_asgi.documents.document_types:DocList",
        "Executor": _EXECUTOR["Executor"],
        **_FLOW,
        **_GATEWAY,
        "__version__": "jina_asgi.compat.names:VERSION",
        **_DECORATORS,
    },
    "jina.clients": _CLIENT,
    "jina.clients.base": {"CallbackFnType": "jina_asgi.clients.posts:Callback"},
    "jina.enums": {
        name: f"jina_asgi.compat.enums:{name}" for name in ("GatewayProtocolType", "PollingType", "ProtocolType")
    },
    "jina.excepts": {
        **{name: f"jina_asgi.excepts:{name}" for name in _OURS},
        **{name: f"jina_asgi.errors:{ours}" for name, ours in _IN_PLACE.items()},
        **{name: f"jina_asgi.compat.enums:{name}" for name in _NEVER},
    },
    "jina.helper": {
        "batch_iterator": "jina_asgi.compat.helper:batch_iterator",
        **{name: f"jina_asgi.compat.helper:{name}" for name in ("random_identity", "random_port", "random_uuid")},
    },
    "jina.logging": {},
    "jina.logging.logger": {"JinaLogger": "jina_asgi.settings.jina_options:JinaLogger"},
    "jina.logging.predefined": {"default_logger": "jina_asgi.settings.jina_options:default_logger"},
    "jina.logging.profile": {"TimeContext": "jina_asgi.compat.helper:TimeContext"},
    "jina.orchestrate": {},
    "jina.orchestrate.deployments": _DEPLOYMENT,
    "jina.orchestrate.flow": {},
    "jina.orchestrate.flow.asyncio": _ASYNC_FLOW,
    "jina.orchestrate.flow.base": _FLOW,
    "jina.serve": {},
    "jina.serve.executors": {**_EXECUTOR, "__dry_run_endpoint__": "jina_asgi.compat.classes:DRY_RUN"},
    "jina.serve.executors.decorators": {**_DECORATORS, "write": "jina_asgi.compat.classes:write"},
    "jina.serve.executors.metas": {"get_default_metas": "jina_asgi.compat.classes:get_default_metas"},
    "jina.types": {},
    "jina.types.request": {"Request": _RESPONSE},
    "jina_commons": {"get_logger": "jina_asgi.compat.helper:get_logger"},
    "jina_commons.batching": {"get_docs_batch_generator": "jina_asgi.compat.helper:get_docs_batch_generator"},
    "jina.types.request.data": dict.fromkeys(("DataRequest", "Response", "SingleDocumentRequest"), _RESPONSE),
}

#: The version of Jina whose interface this is, for programs that check it.
VERSION = "3.34.0"


_MORE = "see docs/migrate.md for what this library does instead of the rest of Jina"


class Finder(MetaPathFinder, Loader):
    """Finds the modules below `jina`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds a module by name.

        Raises:
            ImportError: the name begins with "jina." or "jina_commons." and is not known here; lists the known names.
        """
        if not name.startswith(("jina.", "jina_commons.")):
            return None
        if name not in MODULES:
            raise ImportError(_missing(name), name=name)
        # As a package, so that submodules that do not exist are looked up here too.
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Creates an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        answer_for(module)


def answer_for(module: ModuleType) -> None:
    """Gives a module the names from the table; each is imported on first use."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    own, names = module.__name__, MODULES[module.__name__]
    if own == "jina":
        mark(module)
        signals.install()

    def ask(name: str) -> Any:
        if name in names:
            place, _, attribute = names[name].rpartition(":")
            found = getattr(importlib.import_module(place), attribute)
            setattr(module, name, found)
            return found
        if f"{own}.{name}" in MODULES:
            return importlib.import_module(f"{own}.{name}")
        raise AttributeError(f"module {own!r} has no {name!r} here; it has {', '.join(names) or 'no names'}")

    module.__getattr__ = ask  # type: ignore[method-assign]  # as PEP 562 has it
    module.__all__ = sorted(names)  # type: ignore[attr-defined]
    module.__dir__ = lambda: sorted({*module.__dict__, *names})  # type: ignore[method-assign]


def _missing(name: str) -> str:
    owner = name.rpartition(".")[0]
    names = MODULES.get(owner)
    there = f"{owner} has {', '.join(names)}; " if names else ""
    modules = ", ".join(module for module, held in MODULES.items() if held)
    return f"{name} is not offered by jina_asgi: {there}there are the modules {modules}; {_MORE}"
