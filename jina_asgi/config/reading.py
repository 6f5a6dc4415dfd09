"""Resolves `uses`, in Python and in YAML: a class, an import path, an Executor's YAML file, or inline YAML.

An Executor's YAML names its class and default options; the Deployment's options override them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from jina_asgi.config._callers import folder_of_caller
from jina_asgi.config._substitution import as_argument, substituted
from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.executors.executor import Executor
from jina_asgi.executors.import_path import Uses, is_base, known_class, pass_through
from jina_asgi.executors.py_modules import is_dotted
from jina_asgi.settings import AROUND
from jina_asgi.settings.base import Settings
from jina_asgi.settings.document import Document, Key, is_stream
from jina_asgi.settings.jina_mode import as_jina

logger = logging.getLogger("jina_asgi")

#: The keys of an Executor's YAML, and the Deployment option that each becomes.
_EXECUTOR = {
    "with": "uses_with",
    "metas": "uses_metas",
    "requests": "uses_requests",
    "dynamic_batching": "uses_dynamic_batching",
}
_KEYS = ("jtype", "version", "py_modules", "runtime_args", *_EXECUTOR)

Named = Uses | type[Executor]
T = TypeVar("T")


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
    from jina_asgi.config import files as config_files  # needs yaml, which most programs do not use

    found = config_files.read(_beside_caller(source))
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


def opened(uses: Any, options: Mapping[str, Any], reading: Reading) -> Any:
    """Reads the document that `uses` names if it is YAML; else returns `uses` unchanged."""
    if not is_yaml(uses) or isinstance(uses, Document):
        return uses
    if isinstance(uses, Mapping):  # given in Python: no substitution
        return Document(dict(uses), "uses", reading.start, {})
    if isinstance(uses, os.PathLike) or (isinstance(uses, str) and "\n" not in uses):
        search = options.get("extra_search_paths") or ()
        beside = None if reading.folder else folder_of_caller()
        uses = _path(str(uses), reading.start, [*search, *([str(beside)] if beside else ())])
    return document(uses, reading)


def unwrapped(uses: Any, options: Mapping[str, Any], reading: Reading) -> tuple[Any, dict[str, Any], Reading]:
    """As `opened`; unwraps the YAML of a Deployment to its own `uses` and its options, with `options` over them.

    Raises:
        DefinitionError: it cannot be read, or its `uses` is the YAML of a Deployment again.
    """
    found = opened(uses, options, reading)
    if not isinstance(found, Document) or found.data.get("jtype") != "Deployment":
        named = isinstance(uses, os.PathLike) or (isinstance(uses, str) and "\n" not in uses)
        return uses if named else found, dict(options), reading
    inner, below = given(found, ())
    found.check()
    if isinstance(inner, Document) and inner.data.get("jtype") == "Deployment":
        raise DefinitionError(f"{found.where(('uses',))}: a Deployment's 'uses' is an Executor, and no Deployment")
    modules = _modules(options.get("py_modules"), reading, options.get("extra_search_paths") or ())
    merged, there = overridden(below, options), replace(reading, folder=found.folder)
    for part in AROUND:
        if merged.get(part) is not None:  # relative to the file that names it
            merged[part] = opened(merged[part], options, there if options.get(part) is None else reading)
    if modules:
        merged["py_modules"] = modules
    return inner, merged, there


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
    search = options.get("extra_search_paths") or ()
    metas = _with_modules(options.get("uses_metas"), reading, search)
    files = [*_modules(options.get("py_modules"), reading, search), *metas.get("py_modules", ())]
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
    search = [str(reading.start / path) for path in options.get("extra_search_paths") or ()]
    jtype = data.get("jtype")
    if jtype == "Flow":
        raise DefinitionError(f"{document.where(('jtype',))}: expected an Executor or a Deployment, got a Flow")
    for key in data:
        if key not in _KEYS:
            document.unknown((key,), _KEYS)
    for key, option in _EXECUTOR.items():
        given = data.get(key)
        if isinstance(given, dict):
            upper = merged.get(option) or {}
            merged[option] = overridden(given, upper) if key == "dynamic_batching" else {**given, **upper}
        elif given is not None:
            document.complain((key,), f"{key!r}: expected a mapping, got {safe_repr(given)}")
    if "runtime_args" in data:
        place = document.where(("runtime_args",))
        logger.warning("%s: 'runtime_args' changes nothing here: a Deployment says where an Executor runs", place)
    if not isinstance(jtype, str) or not jtype:
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


def _modules_at(document: Document, key: Key, reading: Reading, search: Sequence[str]) -> list[str]:
    """The files of the `py_modules` at a key; mistakes are recorded."""
    modules = reduce(lambda part, name: _mapping(part).get(str(name)), key, document.data)
    try:
        return _modules(modules, reading, search)
    except DefinitionError as error:
        document.complain(key, error.message)
        return []


def given(found: Document, key: Key) -> tuple[Any, dict[str, Any]]:
    """The `uses` and the options of a Deployment, which may be below `with`, beside it, or both."""
    data = found.at(key)
    beside = {name: value for name, value in data.items() if name not in ("jtype", "version", "with")}
    below = data.get("with") or {}
    if not isinstance(below, dict):
        found.complain((*key, "with"), f"'with': expected a mapping, got {safe_repr(below)}")
        below = {}
    for name in beside.keys() & below.keys():
        found.complain((*key, name), f"{name!r} stands beside 'with' and below it; leave one of them out")
    options = {**beside, **below}
    for name in ("uses", *AROUND):
        if isinstance(options.get(name), dict):
            options[name] = found.part((*key, "with", name) if name in below else (*key, name))
    return options.pop("uses", None), options


def check_options(
    found: Document, key: Key, settings: type[Settings], options: Mapping[str, Any], *, below: Sequence[str] = ("with",)
) -> None:
    """Records all mistakes in some options, each at its position: in the part at `key`, or below one of these keys."""
    for option, message in settings.mistakes(options):
        found.complain(_place(found, key, option, below), message)


def _place(found: Document, key: Key, option: str, below: Sequence[str] = ("with",)) -> Key:
    """The position of an option: in the part at `key`, or below one of the keys of `below`."""
    data = _mapping(found.at(key))
    places = [(*key, name, option) for name in below if option in _mapping(data.get(name))]
    return [*places, (*key, option)][0] if option else key


def check_version(found: Document) -> None:
    """Records an invalid version of Jina's YAML; only one has ever been in use."""
    if str(found.data.get("version", "1")) not in ("1", "1.0"):
        found.complain(("version",), f"expected version 1, got {safe_repr(found.data['version'])}")


def made(found: Document, key: Key, make: Callable[[], T]) -> T | None:
    """Calls `make`; records its error at this position, unless the error has a position of its own."""
    try:
        return make()
    except DefinitionError as error:
        for line in error.message.splitlines():
            if line.startswith(f"{found.name}:"):
                found.problems.append(line)
            else:
                option = line.partition("=")[0]  # as in "uses='Nobody': expected ..."
                found.complain(_place(found, key, option if option in ("uses", *AROUND) else ""), line)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


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
    from jina_asgi.config import files as config_files  # needs yaml, as above

    text = config_files.dumped(data)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _with_modules(metas: Any, reading: Reading, search: Sequence[str]) -> dict[str, Any]:
    """The metas of an Executor, with resolved paths for the `py_modules` that Jina's hub puts there."""
    said = _mapping(metas)
    return {**said, "py_modules": _modules(said["py_modules"], reading, search)} if "py_modules" in said else {**said}


def _modules(modules: Any, reading: Reading, search: Sequence[str]) -> list[str]:
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
    return name if dotted else str(_path(name, folder, search))


def _path(name: str, folder: Path, search: Sequence[str]) -> Path:
    for start in (folder, *(folder / path for path in search)):
        try:
            if (found := (start / name).resolve()).is_file():
                return found
        except (OSError, ValueError) as error:
            raise DefinitionError(f"{safe_repr(name)}: {getattr(error, 'strerror', None) or error}") from error
    looked = f" or in {', '.join(search)}" if search else ""
    raise DefinitionError(f"{folder / name}: No such file{looked}")


def _beside_caller(source: Any) -> Any:
    """The path of a YAML; one that is not in the working directory is looked for beside the calling module."""
    if not isinstance(source, str | os.PathLike) or not str(source).endswith((".yml", ".yaml")) or "\n" in str(source):
        return source
    folder = None if Path(source).exists() else folder_of_caller()
    return beside if folder is not None and (beside := folder / source).is_file() else source


def placed(name: str, start: Path, to: Path | None) -> str:
    """A path as a YAML file in the folder `to` should write it: relative only if it lies below that folder."""
    path = Path(os.path.abspath(start / name))
    if not path.exists():  # it was found in one of `extra_search_paths`
        return name
    return path.relative_to(to).as_posix() if to is not None and path.is_relative_to(to) else str(path)
