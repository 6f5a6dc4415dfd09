"""An Executor's YAML: where its class is, and the options that it comes with."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from jina_asgi.errors import DefinitionError
from jina_asgi.uses import Uses

_KEYS = ("jtype", "with", "metas", "py_modules", "requests", "dynamic_batching")
#: What a key becomes among a Deployment's options, which are over it, entry by entry.
_OPTIONS = {
    "with": "uses_with",
    "metas": "uses_metas",
    "requests": "uses_requests",
    "dynamic_batching": "uses_dynamic_batching",
}


def read_executor(path: str | Path, options: Mapping[str, Any]) -> tuple[Uses, dict[str, Any]]:
    """The class that an Executor's YAML names, and the Deployment's options over its own.

    Args:
        path: the file. Its `py_modules` are relative to its folder, and imported.
        options: those of the Deployment.

    Raises:
        DefinitionError: a file that is not there or is no such YAML; it names the line, and the nearest key.
    """
    file = Path(path).resolve()
    found = _load(file)
    merged = dict(options)
    for key, option in _OPTIONS.items():
        given = found.get(key)
        if given is None:
            continue
        if not isinstance(given, dict):
            raise DefinitionError(f"{file}: {key!r}: expected a mapping, got {given!r}")
        merged[option] = _over(given, merged.get(option) or {}, deep=key == "dynamic_batching")
    jtype = found.get("jtype")
    if not isinstance(jtype, str) or not jtype:
        raise DefinitionError(f"{file}: expected 'jtype', the name of an Executor class")
    return Uses.of_files(jtype, [_module(file, name) for name in _listed(file, found.get("py_modules"))]), merged


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any], *, deep: bool) -> dict[str, Any]:
    if not deep:
        return {**lower, **upper}
    return {name: {**(lower.get(name) or {}), **(upper.get(name) or {})} for name in {**lower, **upper}}


def _listed(file: Path, modules: Any) -> list[str]:
    listed = [modules] if isinstance(modules, str) else modules or []
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise DefinitionError(f"{file}: 'py_modules': expected a list of Python files, got {modules!r}")
    return listed


def _module(file: Path, name: str) -> str:
    module = (file.parent / name).resolve()
    if not module.is_file():
        raise DefinitionError(f"{file}: 'py_modules': there is no file {name!r} beside it")
    return str(module)


class _Loader(yaml.SafeLoader):
    """Plain data. No key twice, and no aliases: they make a small file a large one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # it has no types
            raise yaml.constructor.ConstructorError(None, None, "aliases are not taken here", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(file: Path) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8") as stream:
            loader = _Loader(stream)
            try:
                node = loader.get_single_node()
                found = None if node is None else loader.construct_document(node)
            finally:
                loader.dispose()
    except OSError as error:
        raise DefinitionError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DefinitionError(f"{file}: {_said(error)}") from error
    if node is None or not isinstance(found, dict):
        raise DefinitionError(f"{file}: expected a mapping with 'jtype', got {type(found).__name__}")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    for key in found:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KEYS)}"
            raise DefinitionError(f"{file}, line {lines.get(str(key), '?')}: unknown key {key!r}; {hint}")
    return found


def _said(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return f"{where}{getattr(error, 'problem', None) or error}"
