"""What a `uses` means, in Python and in YAML: a class, an import path, an Executor's YAML, or one written in place.

An Executor's YAML says its class and the options that it comes with; those of the Deployment are over them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jina_asgi._substitution import substituted
from jina_asgi.errors import DefinitionError
from jina_asgi.executor import Executor
from jina_asgi.settings.base import Settings
from jina_asgi.uses import Uses, known_class

if TYPE_CHECKING:
    from jina_asgi.yaml_files import Document, Key

#: An Executor's YAML: each key, and what it becomes among a Deployment's options.
_EXECUTOR = {
    "with": "uses_with",
    "metas": "uses_metas",
    "requests": "uses_requests",
    "dynamic_batching": "uses_dynamic_batching",
}
_KEYS = ("jtype", "version", "py_modules", *_EXECUTOR)

Named = Uses | type[Executor]
T = TypeVar("T")


def document(source: Any, *, substitute: bool = True, context: Mapping[str, Any] | None = None) -> Document:
    """The YAML that a path, a string, a mapping or a stream holds.

    Args:
        source: what holds it.
        substitute: whether `${{ ENV.X }}`, `${{ CONTEXT.x }}` and `$X` stand for something else.
        context: what `${{ CONTEXT.x }}` finds.

    Raises:
        DefinitionError: there is none, or it is no YAML of the kind taken here; it says where.
    """
    from jina_asgi import yaml_files  # with yaml, which most programs do not need

    found = yaml_files.read(source)
    if not isinstance(found.data, dict):
        raise DefinitionError(f"{found.name}: expected a mapping with 'jtype', got {type(found.data).__name__}")
    if substitute:
        found.data = substituted(found.data, environment=os.environ, context=context, complain=found.complain)
    return found


def resolved(uses: Any, options: Mapping[str, Any], folder: Path | None = None) -> tuple[Named, dict[str, Any]]:
    """The class that `uses` names, and the options with those that come with it below them.

    Args:
        uses: an Executor class; its import path; its name, where `py_modules` has it; the path of its YAML; or what
            such a YAML holds.
        options: those of a Deployment, with `py_modules` and `extra_search_paths`.
        folder: what relative paths start from; None: the working directory.

    Raises:
        DefinitionError: it names none.
    """
    folder = folder or Path.cwd()
    files = _modules(options.get("py_modules"), folder, options.get("extra_search_paths") or ())
    if isinstance(uses, type) and issubclass(uses, Executor):
        return uses, dict(options)
    if isinstance(uses, str) and uses.endswith((".yml", ".yaml")):
        return _of_document(document(_path(uses, folder, options.get("extra_search_paths") or ())), options, files)
    if isinstance(uses, Mapping):
        return _of_document(_inline(uses, folder), options, files)
    if not isinstance(uses, str):
        raise DefinitionError(
            f"uses={uses!r}: expected a class derived from jina_asgi.Executor, or its import path, or the path of its YAML"
        )
    return _named(uses, files), dict(options)


def _named(name: str, files: Sequence[str]) -> Named:
    if files:
        return Uses.of_files(name, files)
    return (known_class(name) if name.isidentifier() else None) or Uses.at(name)


def _inline(data: Mapping[str, Any], folder: Path) -> Document:
    from jina_asgi.yaml_files import Document  # as above

    return Document(dict(data), "uses", folder, {})


def _of_document(document: Document, options: Mapping[str, Any], files: list[str]) -> tuple[Named, dict[str, Any]]:
    data, merged = document.data, dict(options)
    for key in data:
        if key not in _KEYS:
            document.unknown((key,), _KEYS)
    for key, option in _EXECUTOR.items():
        given = data.get(key)
        if isinstance(given, dict):
            merged[option] = _over(given, merged.get(option) or {}, deep=key == "dynamic_batching")
        elif given is not None:
            document.complain((key,), f"{key!r}: expected a mapping, got {given!r}")
    jtype = data.get("jtype")
    if not isinstance(jtype, str) or not jtype:
        document.complain((), "expected 'jtype', the name of an Executor class")
    document.check()
    try:
        own = _modules(data.get("py_modules"), document.folder, ())
        return _named(jtype, [*own, *files]), merged
    except DefinitionError as error:
        raise DefinitionError(f"{document.where(('py_modules',))}: {error.message}") from error


def given(found: Document, key: Key = ()) -> tuple[Any, dict[str, Any]]:
    """The `uses` and the options of a Deployment, which may stand below `with`, beside it, or both."""
    data = found.at(key)
    beside = {name: value for name, value in data.items() if name not in ("jtype", "version", "with")}
    below = data.get("with") or {}
    if not isinstance(below, dict):
        found.complain((*key, "with"), f"'with': expected a mapping, got {below!r}")
        below = {}
    options = {**beside, **below}
    return options.pop("uses", None), options


def check_options(found: Document, key: Key, settings: type[Settings], options: Mapping[str, Any]) -> None:
    """Note all that is wrong with some options, each at its place."""
    data = found.at(key)
    for option, message in settings.mistakes(options):
        place = (*key, "with", option) if option in (data.get("with") or {}) else (*key, option)
        found.complain(place if option else key, message)


def made(found: Document, key: Key, make: Callable[[], T]) -> T | None:
    """What `make` makes; where it cannot, that is noted at this place."""
    try:
        return make()
    except DefinitionError as error:
        found.complain(key, error.message)
    return None


def overridden(options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Options with others over them; mappings entry by entry."""
    merged = dict(options)
    for name, value in overrides.items():
        below = merged.get(name)
        merged[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def written(data: Mapping[str, Any], path: str | Path | None) -> str:
    """Plain data as YAML; written to a file where one is named."""
    import yaml  # as above

    text: str = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any], *, deep: bool) -> dict[str, Any]:
    if not deep:
        return {**lower, **upper}
    return {name: {**(lower.get(name) or {}), **(upper.get(name) or {})} for name in {**lower, **upper}}


def _modules(modules: Any, folder: Path, search: Sequence[str]) -> list[str]:
    """The files of `py_modules`, which are imported.

    Raises:
        DefinitionError: one is not there.
    """
    listed = [modules] if isinstance(modules, str) else modules or []
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise DefinitionError(f"'py_modules': expected a list of Python files, got {modules!r}")
    return [str(_path(name, folder, search)) for name in listed]


def _path(name: str, folder: Path, search: Sequence[str]) -> Path:
    for start in (folder, *(folder / path for path in search)):
        if (found := (start / name).resolve()).is_file():
            return found
    looked = f" or in {', '.join(search)}" if search else ""
    raise DefinitionError(f"{folder / name}: No such file{looked}")
