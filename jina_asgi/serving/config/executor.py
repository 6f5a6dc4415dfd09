"""Finds the Executor class that `uses` names, in Python and in YAML: a class, an import path, or an Executor's YAML.

An Executor's YAML names its class and default options; the Deployment's options override them.

A mapping of a YAML as a pydantic model: each key is declared once, for the checks and for the JSON Schema.

Options are declared in `settings`.

The Executors before and after a Deployment's shards (`uses_before`, `uses_after`): classes and options.

They run where the Deployment's own Executor does, once for all shards. Options that belong to the class of `uses`, such
as `uses_with`, do not apply to them: they have the `with` of their own YAML.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.executor import Executor
from jina_asgi.executors.import_path import Uses, is_base, known_class, pass_through
from jina_asgi.executors.py_modules import is_dotted
from jina_asgi.serving.config.reading import Reading, find_file, opened, overridden, search_paths
from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.document import Document, Key
from jina_asgi.settings.jina_options import as_jina


class YamlMapping(BaseModel):
    """The keys of a mapping, in the words of its YAML (`alias`)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def known(cls) -> dict[str, str | None]:
        """The keys, and what messages call the value of each: the `title` of its field."""
        return {field.alias or name: field.title for name, field in cls.model_fields.items()}

    @classmethod
    def wrong(cls, values: Mapping[str, Any]) -> dict[str, Key]:
        """The keys that are unknown, or have a value of the wrong type; and the place of the first mistake in each."""
        found: dict[str, Key] = {}
        try:
            cls.model_validate(values)
        except ValidationError as error:
            for entry in error.errors():
                found.setdefault(str(entry["loc"][0]), entry["loc"])
        return found

    @classmethod
    def check(cls, found: Document, values: Mapping[str, Any], place: Callable[[str], Key]) -> None:
        """Records every mistake in the values, each at its place."""
        known = cls.known()
        for name, within in cls.wrong(values).items():
            if name in known:
                message = f"{name!r}: expected {known[name]}, got {safe_repr(values[name])}"
                found.complain((*place(name), *within[1:]), message)
            else:
                found.unknown(place(name), known)


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


#: Options of a Deployment that also apply to the Executors around its shards, if they are set.
_SHARED = (
    "py_modules",
    "extra_search_paths",
    "workspace",
    "allow_concurrent",
    "idempotent",
    "max_queue",
    "max_queue_bytes",
    "grace",
    "env",
    "startup_timeout",
    "heartbeat",
    "abandoned_timeout",
    "max_requests",
    "max_rss",
)
#: Options that apply to them in Jina.
_SHARED_IN_JINA = ("uses_with", "uses_metas")


@dataclass(frozen=True, slots=True)
class HeadExecutor:
    """One of these Executors: its class and its own settings."""

    uses: Named
    settings: DeploymentSettings


def head_executors_of(settings: DeploymentSettings, reading: Reading) -> dict[str, HeadExecutor]:
    """The Executors around the shards, by the option that names each.

    Raises:
        DefinitionError: an option names no Executor, or there are no shards to run before or after. In a program
            written for Jina the latter is only logged, as it has no effect there.
    """
    named = {part: uses for part in AROUND if (uses := getattr(settings, part)) is not None and not is_base(uses)}
    if named and (why := _why_not(settings)):
        message = f"{settings.name}: {next(iter(named))!r} {why}"
        if not as_jina():
            raise DefinitionError(message)
        logger.warning("%s; it is ignored, as in Jina", message)
        return {}
    return {part: _one(part, uses, settings, reading) for part, uses in named.items()}


def _why_not(settings: DeploymentSettings) -> str:
    if settings.external:
        return (
            "is an option of the server at its host, which runs its own; leave it out where the Deployment is external"
        )
    if settings.shards == 1:
        return (
            "runs before or after several shards: expected shards=2 or more, got shards=1; in front of one Executor, or"
            " behind it, put a node of a Flow"
        )
    return ""


def _one(part: str, uses: Any, settings: DeploymentSettings, reading: Reading) -> HeadExecutor:
    shared = (*_SHARED, *(_SHARED_IN_JINA if as_jina() else ()))
    options = {name: getattr(settings, name) for name in shared if name in settings.model_fields_set}
    options |= {"name": f"{settings.name}-{part}", "placement": "pool" if settings.pooled else "worker"}
    try:
        found = opened(uses, options, reading)
        if isinstance(found, Document) and found.data.get("jtype") == "Deployment":
            raise DefinitionError(f"{found.where(('jtype',))}: {part!r}: expected an Executor, got a Deployment")
        named, options = resolved(found, options, reading)
        return HeadExecutor(named, DeploymentSettings.of(options))
    except DefinitionError as error:
        raise DefinitionError(error.message.replace("uses=", f"{part}=", 1)) from error
