"""How an Executor's class is named so that another process finds it again, and how that process does."""

from __future__ import annotations

import importlib
import runpy
import sys
from types import ModuleType
from typing import Any

import msgspec

from jina_asgi.errors import DefinitionError
from jina_asgi.executor import Executor

_MAIN = "__mp_main__"  # as multiprocessing calls the main module of the process that started this one


class Uses(msgspec.Struct, frozen=True):
    """A class by its module and its name there; `main` is the file of a module that was run as a program."""

    module: str
    name: str
    main: str = ""

    @classmethod
    def of(cls, uses: type[Executor]) -> Uses:
        """Where a class can be imported from.

        Raises:
            DefinitionError: nowhere: it was made in a function, or in a session that no file holds.
        """
        module = sys.modules.get(uses.__module__)
        if "<locals>" in uses.__qualname__ or _found(module, uses.__qualname__) is not uses:
            raise DefinitionError(
                f"{uses.__module__}.{uses.__qualname__} cannot be imported again by another process, which replicas"
                " need; define it at the top level of a module"
            )
        if uses.__module__ not in ("__main__", _MAIN):
            return cls(uses.__module__, uses.__qualname__)
        spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
        if spec is not None:  # python -m package.module
            return cls(spec.name, uses.__qualname__)
        if file is None:
            raise DefinitionError(
                f"{uses.__qualname__} was defined in an interactive session, which another process cannot import, as"
                " replicas need; put it into a file"
            )
        return cls("__main__", uses.__qualname__, file)

    @classmethod
    def at(cls, path: str) -> Uses:
        """The class at an import path: "package.module.Class" or "package.module:Class".

        Raises:
            DefinitionError: the path is none.
        """
        module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
        if not (module and name) or not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
            raise DefinitionError(f"uses={path!r}: expected an import path such as 'package.module.Class'")
        return cls(module, name)

    def load(self) -> type[Executor]:
        """Import the class.

        Raises:
            DefinitionError: what is there is no Executor class, or nothing is. Whatever its module raises.
        """
        module = _run_main(self.main) if self.main else importlib.import_module(self.module)
        found = _found(module, self.name)
        if not (isinstance(found, type) and issubclass(found, Executor)):
            raise DefinitionError(f"{self}: expected a class derived from jina_asgi.Executor, found {found!r}")
        return found

    def __str__(self) -> str:
        return f"{self.main or self.module}:{self.name}"


def _found(module: ModuleType | None, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _run_main(file: str) -> ModuleType:
    """The program that started us, run again but for what stands under `if __name__ == "__main__"`."""
    module = ModuleType(_MAIN)
    sys.modules[_MAIN] = sys.modules["__main__"] = module  # before it runs: its classes look their module up
    try:
        found = runpy.run_path(file, run_name=_MAIN)
    except Exception as error:
        raise DefinitionError(
            f"{file} was run again to find its classes, and raised {type(error).__name__}: {error}; what only the program"
            " itself shall do belongs below `if __name__ == '__main__':`"
        ) from error
    module.__dict__.update(found)
    return module
