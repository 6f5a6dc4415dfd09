"""Names an Executor class so that another process can import it, and imports it there."""

from __future__ import annotations

import difflib
import importlib
import runpy
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import msgspec

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._raised import error_text
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.executor import Executor
from jina_asgi.executors.py_modules import import_listed, listed_with
from jina_asgi.settings.jina_options import as_jina

#: The name of the program's module there, as in multiprocessing.
AGAIN = "__mp_main__"

_running: list[str] = []


def run_again(file: str) -> ModuleType:
    """Runs the program in this file again; its module becomes the main module.

    Raises:
        DefinitionError: the program raises, or would start a server here too.
    """
    module = ModuleType(AGAIN)
    sys.modules[AGAIN] = sys.modules["__main__"] = module  # before it runs: its classes look up their module
    _running.append(file)
    try:
        found = runpy.run_path(file, run_name=AGAIN)
    except Exception as error:
        raise DefinitionError(
            f"{file} was run again to find its classes, and raised {error_text(error)}; what only the program"
            " itself shall do belongs below `if __name__ == '__main__':`"
        ) from error
    finally:
        _running.pop()
    module.__dict__.update(found)
    return module


def is_running_again() -> bool:
    """Whether the program is being run again at the moment."""
    return bool(_running)


def check_not_again(name: str) -> None:
    """Refuses to start a server while the program, which runs one already, is run again.

    Raises:
        DefinitionError: it is being run again.
    """
    if _running:
        raise DefinitionError(f"{name} would be served here too, in a replica of what the program itself serves")


#: The Executor that returns its documents unchanged, for Jina's Executor without endpoints.
_PASSING = "jina_asgi.executors.pass_through.PassThrough"


class Uses(msgspec.Struct, frozen=True):
    """A class by module and name; `main` is the file of a module that was run as a program.

    With `files` (the `py_modules` of a configuration) the class of that name is taken from them, else from its module.
    """

    module: str
    name: str
    main: str = ""
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, uses: type[Executor]) -> Uses:
        """The importable name of a class.

        Raises:
            DefinitionError: it has none: it was defined in a function, or in an interactive session.
        """
        if (files := listed_with(uses.__module__)) and "<locals>" not in uses.__qualname__:
            return cls("", uses.__qualname__, files=files)
        module = sys.modules.get(uses.__module__)
        if uses.__module__ == AGAIN and is_running_again():
            return cls(
                "__main__", uses.__qualname__, getattr(module, "__file__", None) or ""
            )  # it is only used in this process
        if "<locals>" in uses.__qualname__ or _found(module, uses.__qualname__) is not uses:
            raise DefinitionError(
                f"{uses.__module__}.{uses.__qualname__} cannot be imported again by another process, which replicas"
                " need; define it at the top level of a module"
            )
        if uses.__module__ not in ("__main__", AGAIN):
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
        """Parses an import path: "package.module.Class" or "package.module:Class".

        Raises:
            DefinitionError: the path is invalid.
        """
        module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
        if not (module and name) or not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
            raise DefinitionError(f"uses={path!r}: expected an import path such as 'package.module.Class'")
        return cls(module, name)

    @classmethod
    def of_files(cls, name: str, files: Sequence[str]) -> Uses:
        """The class of this name in one of the files; else at an import path, or among the known classes."""
        module, _, _ = name.rpartition(".")
        return cls(module, name, files=tuple(files))

    def described(self) -> str | dict[str, Any]:
        """The name as it is written in YAML.

        Raises:
            DefinitionError: the class is defined in the main program.
        """
        if self.main:
            raise DefinitionError(f"{self.name} belongs to a program; give it a module of its own to name it in YAML")
        if self.files:
            return {"jtype": self.name, "py_modules": list(self.files)}
        return f"{self.module}{':' if '.' in self.name else '.'}{self.name}"

    def load(self) -> type[Executor]:
        """Imports the class.

        Raises:
            DefinitionError: there is no such class, or it is no Executor. Any exception of its module.
        """
        if self.files or not self.module:
            found = self._in_files()
        elif self.main:
            found = _found(run_again(self.main), self.name)
        else:
            name = self.name.removeprefix(f"{self.module}.")
            found = _found(_imported(self.module), name)
        if not _is_executor(found):
            raise DefinitionError(f"{self}: {self._wrong_value(found)}")
        cls: type[Executor] = found
        return cls

    def _wrong_value(self, found: Any) -> str:
        """Describes what was found in place of an Executor class."""
        if found is not None:
            return f"expected a class derived from jina_asgi.Executor, got {safe_repr(found)}"
        modules = import_listed(self.files) or [sys.modules[AGAIN if self.main else self.module]]
        named = [item for module in modules for item in vars(module).items()]
        there = [name for name, value in named if _is_executor(value) and value is not Executor]
        near = difflib.get_close_matches(self.name, there, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the Executors there: {', '.join(there) or 'none'}"
        return f"there is no class {self.name!r}; {hint}"

    def _in_files(self) -> Any:
        for module in import_listed(self.files):
            if (found := _found(module, self.name)) is not None:
                return found
        known = known_class(self.name)
        if known is None and self.module:
            return _found(_imported(self.module), self.name.rpartition(".")[2])
        return known

    def __str__(self) -> str:
        return f"{' '.join(self.files) or self.main or self.module}:{self.name}"


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that this module imports
        raise DefinitionError(
            f"{name}: there is no module {error.name!r}; expected an import path such as 'package.module.Class', or"
            " 'py_modules' with the file"
        ) from error


def is_base(uses: Any) -> bool:
    """Whether `uses` is Jina's default Executor without endpoints, in a program written for Jina."""
    return as_jina() and (uses is None or uses is Executor or (isinstance(uses, str) and uses in _BASE))


def pass_through() -> Uses:
    """The name of the Executor that returns its documents unchanged, over every protocol."""
    return Uses.at(_PASSING)


_BASE = ("BaseExecutor", "Executor")


def known_class(name: str) -> type[Executor] | None:
    """The Executor class of this name that is defined in this process; the latest, if there are several."""
    return {cls.__name__: cls for cls in _subclasses(Executor)}.get(name)


def _is_executor(value: Any) -> bool:
    """Whether a value is an Executor class."""
    return isinstance(value, type) and issubclass(value, Executor)


def _subclasses(cls: type[Executor]) -> Iterator[type[Executor]]:
    for found in cls.__subclasses__():
        yield found
        yield from _subclasses(found)


def _found(module: ModuleType | None, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
