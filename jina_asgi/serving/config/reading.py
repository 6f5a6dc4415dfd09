"""Opens a YAML of an Executor, a Deployment or a Flow: finds it, substitutes its expressions, merges its options."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.executor import Executor
from jina_asgi.serving.config._substitution import as_argument, substituted
from jina_asgi.settings.document import Document, is_stream
from jina_asgi.settings.jina_options import as_jina

_OURS = str(Path(__file__).parents[2])


def folder_of_caller() -> Path | None:
    """The folder of the nearest module on the stack outside this library; None if it has no file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(_OURS):
            return path.resolve().parent if path.is_file() else None
        frame = frame.f_back
    return None


def beside_caller(source: Any) -> Any:
    """The path of a YAML; one that is not in the working directory is looked for beside the calling module."""
    if not isinstance(source, str | os.PathLike) or not str(source).endswith((".yml", ".yaml")) or "\n" in str(source):
        return source
    folder = None if Path(source).exists() else folder_of_caller()
    return beside if folder is not None and (beside := folder / source).is_file() else source


def find_file(name: str, folder: Path, search: Sequence[str]) -> Path:
    for start in (folder, *(folder / path for path in search)):
        try:
            if (found := (start / name).resolve()).is_file():
                return found
        except (OSError, ValueError) as error:
            raise DefinitionError(f"{safe_repr(name)}: {getattr(error, 'strerror', None) or error}") from error
    looked = f" or in {', '.join(search)}" if search else ""
    raise DefinitionError(f"{folder / name}: No such file{looked}")


def placed(name: str, start: Path, to: Path | None) -> str:
    """A path as a YAML file in the folder `to` should write it: relative only if it lies below that folder."""
    path = Path(os.path.abspath(start / name))
    if not path.exists():  # it was found in one of `extra_search_paths`
        return name
    return path.relative_to(to).as_posix() if to is not None and path.is_relative_to(to) else str(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a YAML file, and the files that it names, are read.

    Attributes:
        folder: the folder that relative paths start from; None: the working directory.
        substitute: whether `${{ ENV.X }}`, `${{ CONTEXT.x }}` and `$X` are substituted.
        context: the values for `${{ CONTEXT.x }}`.
        allow_py_modules: whether the files of `py_modules` are imported; not for YAML from an untrusted source.
    """

    folder: Path | None = None
    substitute: bool = True
    context: Mapping[str, Any] | None = None
    allow_py_modules: bool = True

    @property
    def start(self) -> Path:
        return self.folder or Path.cwd()


def document(source: Any, reading: Reading) -> Document:
    """Reads the YAML of a path, a string, a mapping or a stream.

    Raises:
        DefinitionError: there is no such file, or it is not in the supported subset of YAML; names the position.
    """
    if isinstance(source, Document):
        return source
    if isinstance(source, Executor):  # which may have a method `read`
        raise DefinitionError(f"expected YAML, or the path of one, got an Executor, {safe_repr(source)}")
    from jina_asgi.serving.config import files as config_files  # needs yaml, which most programs do not use

    found = config_files.read(beside_caller(source))
    if not isinstance(found.data, dict):
        raise DefinitionError(f"{found.name}: expected a mapping with 'jtype', got {type(found.data).__name__}")
    if reading.substitute:
        found.data = substituted(
            found.data,
            environment=os.environ,
            context=reading.context,
            complain=found.complain,
            read=as_argument if as_jina() else str,
        )
    return found


def is_yaml(uses: Any) -> bool:
    """Whether `uses` is YAML or the path of a YAML file, and not a class or an import path."""
    if isinstance(uses, str):
        return "\n" in uses or uses.endswith((".yml", ".yaml"))
    return not isinstance(uses, Executor) and (isinstance(uses, Document | Mapping | os.PathLike) or is_stream(uses))


def search_paths(options: Mapping[str, Any]) -> list[str]:
    """The option `extra_search_paths`, which is used before the settings check it.

    Raises:
        DefinitionError: it is not a list of folders.
    """
    search = options.get("extra_search_paths") or []
    if not isinstance(search, list | tuple) or not all(isinstance(path, str) for path in search):
        raise DefinitionError(f"option 'extra_search_paths': expected a list of folders, got {safe_repr(search)}")
    return list(search)


def opened(uses: Any, options: Mapping[str, Any], reading: Reading) -> Any:
    """Reads the document that `uses` names if it is YAML; else returns `uses` unchanged."""
    if not is_yaml(uses) or isinstance(uses, Document):
        return uses
    if isinstance(uses, Mapping):  # given in Python: no substitution
        return Document(dict(uses), "uses", reading.start, {})
    if isinstance(uses, os.PathLike) or (isinstance(uses, str) and "\n" not in uses):
        search = search_paths(options)
        beside = None if reading.folder else folder_of_caller()
        uses = find_file(str(uses), reading.start, [*search, *([str(beside)] if beside else ())])
    return document(uses, reading)


def overridden(options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merges options with others over them, mappings entry by entry; None keeps a mapping unchanged."""
    merged = dict(options)
    for name, value in overrides.items():
        below = merged.get(name)
        if value is None and isinstance(below, dict):
            continue
        merged[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def written(data: Mapping[str, Any], path: str | Path | None) -> str:
    """Writes plain data as YAML, to a file if `path` is given.

    Raises:
        DefinitionError: it holds something other than plain data.
    """
    from jina_asgi.serving.config import files as config_files  # needs yaml, as above

    text = config_files.dumped(data)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
