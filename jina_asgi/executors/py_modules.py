"""Imports the files of `py_modules`: each folder is a package, whose modules import each other by their bare names.

Jina imports such a file by its bare name, in a process with one Executor. Here several Executors share a process, and
two folders may both have a `helper.py`: `import helper` in a file of a folder always imports that folder's.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from jina_asgi.errors import DefinitionError

_PREFIX = "py_modules_"
_import = builtins.__import__


def import_listed(names: Sequence[str]) -> list[ModuleType]:
    """Imports the entries of a `py_modules` list, files and dotted names, in order; each is loaded once.

    A file of an importable package is imported by its dotted name.

    Raises:
        DefinitionError: an entry is not a Python file. Any exception of a module.
    """
    files = [Path(name) for name in names if not is_dotted(name)]
    for file in files:
        _ModuleFolder.of(file.parent).list_with(files)
    return [importlib.import_module(name) if is_dotted(name) else _import_file(Path(name)) for name in names]


def is_dotted(name: str) -> bool:
    """Whether an entry of `py_modules` is a dotted module name and not a file."""
    return not name.endswith(".py") and all(part.isidentifier() for part in name.split("."))


def listed_with(module: str) -> tuple[str, ...]:
    """The files that a module was listed with, and its own; empty for a module that was not listed."""
    folder = _FOLDERS.get(module.partition(".")[0])
    file = getattr(sys.modules.get(module), "__file__", None)
    if folder is None or file is None:
        return ()
    return tuple(dict.fromkeys([*map(str, folder.listed.values()), file]))


def _import_file(file: Path) -> ModuleType:
    dotted = _dotted(file)
    if dotted is not None:
        try:
            return importlib.import_module(dotted)
        except ModuleNotFoundError as error:
            if error.name is None or not _ModuleFolder.of(file.parent).has(error.name.partition(".")[0]):
                raise  # else it imports modules of its folder by bare names, which modules of packages do not
    if file.suffix != ".py":
        raise DefinitionError(f"{file}: expected a Python file")
    folder = _ModuleFolder.of(file.parent)
    return folder.run_init() if file.name == "__init__.py" else folder.module(file.stem)


def _dotted(file: Path) -> str | None:
    """The dotted name of a file in an importable package; None for other files."""
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if not parts or (len(parts) == 1 and file.name != "__init__.py"):
        return None
    name = ".".join(parts)
    spec = PathFinder.find_spec(parts[0], [str(Path(entry).resolve()) for entry in sys.path])
    within = spec is not None and str(folder / parts[0]) in (spec.submodule_search_locations or [])
    return name if within and all(part.isidentifier() for part in parts) else None


class _ModuleFolder:
    """The modules of one folder, in a package with a unique name.

    Attributes:
        package: its name.
        listed: files of other folders that are listed with this folder's, by the names that they are imported by.
    """

    @classmethod
    def of(cls, path: Path) -> _ModuleFolder:
        package = f"{_PREFIX}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        return _FOLDERS.get(package) or cls(path, package)

    def __init__(self, path: Path, package: str) -> None:
        self.path, self.package = path, package
        self.listed: dict[str, Path] = {}
        self._has_run = False
        self._own: dict[str, bool] = {}
        self.names: Mapping[str, Any] = {**vars(builtins), "__import__": self._imported}
        _FOLDERS[package] = self
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)

    def list_with(self, files: Sequence[Path]) -> None:
        """Records the files that are listed together with a file of this folder."""
        self.listed |= {file.stem: file for file in files if file.stem not in sys.stdlib_module_names}

    def has(self, name: str) -> bool:
        """Whether a bare name is a module here; it shadows installed modules, but none of Python's own."""
        if name not in self._own:
            self._own[name] = name not in sys.stdlib_module_names and self._is_here(name)
        return self._own[name] or name in self.listed

    def _is_here(self, name: str) -> bool:
        below = self.path / name
        if (self.path / f"{name}.py").is_file() or (below / "__init__.py").is_file() or self._is_own_name(name):
            return True
        return below.is_dir() and any(below.glob("*.py")) and PathFinder.find_spec(name) is None

    def _is_own_name(self, name: str) -> bool:
        return name == self.path.name and (self.path / "__init__.py").is_file()

    def _imported(
        self,
        name: str,
        of: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__`, as the modules of this folder have it."""
        top, _, below = name.partition(".")
        if level or not self.has(top):
            return _import(name, of, local, wanted, level)
        module = self.module(top)
        if below:
            importlib.import_module(f"{module.__name__}.{below}")
        return _import(f"{module.__name__}.{below}".rstrip("."), of, local, wanted, 0) if wanted else module

    def module(self, name: str) -> ModuleType:
        """The module of a bare name."""
        if not self._own.get(name, True):
            return _import_file(self.listed[name])
        if self._is_own_name(name) and not (self.path / f"{name}.py").is_file():
            return self.run_init()
        return importlib.import_module(f"{self.package}.{name}")

    def run_init(self) -> ModuleType:
        """Runs the package's `__init__.py`, and returns the package."""
        module = importlib.import_module(self.package)
        if not self._has_run:
            self._has_run = True
            file = str(self.path / "__init__.py")
            module.__file__ = file
            try:
                _ModuleLoader(self.package, file, self).exec_module(module)
            except BaseException:
                self._has_run = False
                del sys.modules[self.package]
                raise
        return module


class _ModuleLoader(SourceFileLoader):
    """Gives a module its folder's `__import__`, which functions that run later have too."""

    def __init__(self, name: str, path: str, folder: _ModuleFolder) -> None:
        super().__init__(name, path)
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._folder.names
        super().exec_module(module)


class _ModuleFinder(MetaPathFinder):
    """Finds the packages of folders, and their modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, below = name.partition(".")
        folder = _FOLDERS.get(top)
        if folder is None:
            return None
        if not below:  # its __init__.py runs where it is asked for
            found = ModuleSpec(name, None, is_package=True)
            found.submodule_search_locations = [str(folder.path)]
            return found
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _ModuleLoader(name, spec.loader.path, folder)
        return spec


_FINDER = _ModuleFinder()
_FOLDERS: dict[str, _ModuleFolder] = {}
