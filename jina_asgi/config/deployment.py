"""The YAML of a Deployment: its `uses`, and its options below `with` or beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from jina_asgi.config.executor import module_files
from jina_asgi.config.reading import Reading, opened, overridden, search_paths
from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.settings import AROUND
from jina_asgi.settings.base import Settings
from jina_asgi.settings.document import Document, Key

T = TypeVar("T")


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
        raise DefinitionError(f"{found.where(('uses',))}: a Deployment's 'uses' must be an Executor, not a Deployment")
    modules = module_files(options.get("py_modules"), reading, search_paths(options))
    merged, there = overridden(below, options), replace(reading, folder=found.folder)
    for part in AROUND:
        if merged.get(part) is not None:  # relative to the file that names it
            merged[part] = opened(merged[part], options, there if options.get(part) is None else reading)
    if modules:
        merged["py_modules"] = modules
    return inner, merged, there


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
        found.complain(place_of(found, key, option, below), message)


def place_of(found: Document, key: Key, option: str, below: Sequence[str] = ("with",)) -> Key:
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
                option = line.partition("=")[0]  # as in "uses='Unknown': expected ..."
                found.complain(place_of(found, key, option if option in ("uses", *AROUND) else ""), line)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
