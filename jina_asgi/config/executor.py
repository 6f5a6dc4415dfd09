"""Finds the Executor class that `uses` names, in Python and in YAML: a class, an import path, or an Executor's YAML.

An Executor's YAML names its class and default options; the Deployment's options override them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from jina_asgi.config.mapping import YamlMapping
from jina_asgi.config.paths import find_file
from jina_asgi.config.reading import Reading, opened, overridden, search_paths
from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.executor import Executor
from jina_asgi.executors.import_path import Uses, is_base, known_class, pass_through
from jina_asgi.executors.py_modules import is_dotted
from jina_asgi.settings.document import Document, Key

logger = logging.getLogger("jina_asgi")

Named = Uses | type[Executor]
#: A name, or several: checked where it is used.
Names = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})]
Mapping_ = Annotated[dict[str, Any] | None, Field(title="a mapping")]


class ExecutorKeys(YamlMapping):
    """The YAML of an Executor."""

    jtype: Annotated[str, Field(title="the name of an Executor class")] = Field(
        "", description="the name of the class, or its import path"
    )
    version: Any = None
    py_modules: Names = Field(None, description="files that have the class")
    runtime_args: Any = Field(None, description="changes nothing here: a Deployment says where an Executor runs")
    with_: Mapping_ = Field(None, alias="with", description="the arguments of its `__init__`")
    metas: Mapping_ = Field(None, description="its name, description and workspace")
    requests: Annotated[dict[str, str] | None, Field(title="a mapping of endpoints to methods")] = Field(
        None, description="endpoint to method"
    )
    dynamic_batching: Annotated[
        dict[str, dict[str, Any]] | None, Field(title="a mapping of endpoints, or methods, to options")
    ] = Field(None, description="options of batching, by endpoint or method")


def resolved(uses: Any, options: Mapping[str, Any], reading: Reading) -> tuple[Named, dict[str, Any]]:
    """Resolves `uses` to a class, and merges the options over those of its YAML.

    Args:
        uses: an Executor class; its import path; its name, if `py_modules` has it; its YAML (a path, a string, a
            mapping or a stream).
        options: those of a Deployment, with `py_modules` and `extra_search_paths`.
        reading: how YAML is read.

    Raises:
        DefinitionError: it names no Executor class.
    """
    search = search_paths(options)
    metas = _with_modules(options.get("uses_metas"), reading, search)
    files = [*module_files(options.get("py_modules"), reading, search), *metas.get("py_modules", ())]
    options = {**options, "uses_metas": metas} if metas else dict(options)
    if is_base(uses):
        return pass_through(), options
    if isinstance(uses, type) and issubclass(uses, Executor):
        return uses, options
    found = opened(uses, options, reading)
    if isinstance(found, Document):
        return _of_document(found, options, files, reading)
    if not isinstance(uses, str):
        raise DefinitionError(
            f"uses={safe_repr(uses)}: expected a class derived from jina_asgi.Executor, or its import path, or the path of"
            " its YAML"
        )
    return _named(uses, files), options


def _named(name: str, files: Sequence[str]) -> Named:
    if is_base(name):
        return pass_through()
    if files:
        return Uses.of_files(name, files)
    return (known_class(name) if name.isidentifier() else None) or Uses.at(name)


def _of_document(
    document: Document, options: Mapping[str, Any], files: list[str], reading: Reading
) -> tuple[Named, dict[str, Any]]:
    data, merged, own = document.data, dict(options), replace(reading, folder=document.folder)
    search = [str(reading.start / path) for path in search_paths(options)]
    jtype = data.get("jtype")
    if jtype == "Flow":
        raise DefinitionError(f"{document.where(('jtype',))}: expected an Executor or a Deployment, got a Flow")
    ExecutorKeys.check(document, data, lambda key: (key,))
    for key in ("with", "metas", "requests", "dynamic_batching"):
        upper = merged.get(f"uses_{key}") or {}  # one that is not a mapping is left to the settings, which refuse it
        if isinstance(given := data.get(key), dict) and isinstance(upper, Mapping):
            merged[f"uses_{key}"] = overridden(given, upper) if key == "dynamic_batching" else {**given, **upper}
    if "runtime_args" in data:
        place = document.where(("runtime_args",))
        logger.warning("%s: 'runtime_args' changes nothing here: a Deployment says where an Executor runs", place)
    if data.get("jtype", "") == "":  # other values were checked
        document.complain((), "expected 'jtype', the name of an Executor class")
    listed = _modules_at(document, ("py_modules",), own, search)
    below = _modules_at(document, ("metas", "py_modules"), own, search)
    document.check()
    if below:
        merged["uses_metas"] = {**merged["uses_metas"], "py_modules": below}
    try:
        return _named(str(jtype), [*listed, *below, *files]), merged
    except DefinitionError as error:
        raise DefinitionError(f"{document.where(('jtype',))}: {error.message}") from error


def _with_modules(metas: Any, reading: Reading, search: Sequence[str]) -> dict[str, Any]:
    """The metas of an Executor, with resolved paths for the `py_modules` that Jina's hub puts there."""
    said = metas if isinstance(metas, Mapping) else {}
    return (
        {**said, "py_modules": module_files(said["py_modules"], reading, search)} if "py_modules" in said else {**said}
    )


def _modules_at(document: Document, key: Key, reading: Reading, search: Sequence[str]) -> list[str]:
    """The files of the `py_modules` at a key; mistakes are recorded."""
    modules = reduce(lambda part, name: part.get(str(name)) if isinstance(part, Mapping) else None, key, document.data)
    try:
        return module_files(modules, reading, search)
    except DefinitionError as error:
        document.complain(key, error.message)
        return []


def module_files(modules: Any, reading: Reading, search: Sequence[str]) -> list[str]:
    """Resolves the files and the dotted module names of `py_modules`, which are imported later.

    Raises:
        DefinitionError: a file does not exist, or importing is not allowed.
    """
    listed = [modules] if isinstance(modules, str) else modules or []
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise DefinitionError(f"'py_modules': expected a list of Python files, got {safe_repr(modules)}")
    if listed and not reading.allow_py_modules:
        raise DefinitionError(
            f"py_modules={safe_repr(listed)}: not imported, as load_config was given allow_py_modules=False; install the"
            " package that has the class, and name its import path"
        )
    return [_module(name, reading.start, search) for name in listed]


def _module(name: str, folder: Path, search: Sequence[str]) -> str:
    """The path of a file; a dotted module name stays as it is, unless a file has that name."""
    dotted = is_dotted(name) and not (folder / name).is_file()
    return name if dotted else str(find_file(name, folder, search))
