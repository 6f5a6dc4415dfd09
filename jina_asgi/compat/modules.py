"""The module `jina` and its submodules: names are looked up here on first use; an error lists the known ones."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

from jina_asgi.compat import signals
from jina_asgi.compat.names import MODULES
from jina_asgi.settings.jina_mode import mark

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
