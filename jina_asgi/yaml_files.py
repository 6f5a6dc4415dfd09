"""YAML as plain data, with the place of every key: from a path, a string, a mapping or a stream.

Safe and small: strings, numbers, true, false, null, lists and mappings. No tags but Jina's `!Name`, no aliases or
merges, no key twice; `on`, `no` and dates are strings.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jina_asgi.errors import DefinitionError

#: The largest file that is read, in characters.
LIMIT = 1 << 20
Key = tuple[str | int, ...]


class Document:
    """What a YAML holds, where its parts stand, and what is wrong with them.

    Attributes:
        data: the plain data.
        folder: what relative paths in it start from.
        problems: what is wrong, each with its place.
    """

    def __init__(self, data: Any, name: str, folder: Path, marks: Mapping[Key, tuple[int, int]]) -> None:
        self.data, self.name, self.folder = data, name, folder
        self._marks = marks
        self.problems: list[str] = []

    def at(self, key: Key) -> Any:
        """A part of the data."""
        data = self.data
        for step in key:
            data = data[step]
        return data

    def where(self, key: Key) -> str:
        """The file, line and column of a part, or of what is around it."""
        while key and key not in self._marks:
            key = key[:-1]
        line, column = self._marks.get(key, (0, 0))
        return f"{self.name}:{line}:{column}" if line else self.name

    def complain(self, key: Key, message: str) -> None:
        """Note what is wrong with a part."""
        self.problems.append(f"{self.where(key)}: {message}")

    def unknown(self, key: Key, known: Iterable[str]) -> None:
        """Note that there is no such key."""
        names = list(known)
        near = difflib.get_close_matches(str(key[-1]), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        self.complain(key, f"unknown key {key[-1]!r}; {hint}")

    def check(self) -> None:
        """Raise all that is wrong at once.

        Raises:
            DefinitionError: something is.
        """
        if self.problems:
            raise DefinitionError("\n".join(self.problems))


def read(source: Any) -> Document:
    """The document that a path, a string of YAML, a mapping or an open file holds.

    Raises:
        DefinitionError: there is none, or it is no YAML of the kind taken here; it says where.
    """
    if isinstance(source, Mapping):
        return Document(dict(source), "the mapping", Path.cwd(), {})
    if hasattr(source, "read"):
        text = source.read()
        name = str(getattr(source, "name", "the stream"))
        folder = Path(name).resolve().parent if Path(name).is_file() else Path.cwd()
        return _parsed(text.decode("utf-8") if isinstance(text, bytes) else text, name, folder)
    if isinstance(source, str) and ("\n" in source or ":" in source.partition("/")[0].replace("://", "")):
        return _parsed(source, "the YAML", Path.cwd())
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path}: expected UTF-8: {error}") from error
    return _parsed(text, str(path), path.resolve().parent)


def _parsed(text: str, name: str, folder: Path) -> Document:
    if len(text) > LIMIT:
        raise DefinitionError(f"{name}: expected at most {LIMIT} characters, got {len(text)}")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        marks: dict[Key, tuple[int, int]] = {}
        data = None if node is None else _value(loader, node, (), marks)
    except (yaml.YAMLError, RecursionError) as error:
        raise DefinitionError(f"{name}{_said(error)}") from error
    finally:
        loader.dispose()
    return Document(data, name, folder, marks)


class _Loader(yaml.SafeLoader):
    """Scalars as YAML 1.2 has them."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            _refuse("aliases are not taken here", self.peek_event())  # type: ignore[no-untyped-call]  # it has no types
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "bool", "int", "float", "null")}


def _value(loader: _Loader, node: Any, key: Key, marks: dict[Key, tuple[int, int]]) -> Any:
    """A node's value; the place of each is noted in `marks`."""
    marks.setdefault(key, (node.start_mark.line + 1, node.start_mark.column + 1))
    custom = isinstance(node, yaml.MappingNode) and re.fullmatch(r"![A-Za-z_][\w.]*", node.tag) is not None
    if not custom and node.tag not in _TAGS:
        _refuse(f"the tag {node.tag!r} is not taken here", node)
    if isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {"jtype": node.tag[1:]} if custom else {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                _refuse("expected a plain key", name)
            if name.value == "<<":
                _refuse("merges are not taken here", name)
            if name.value in made:
                _refuse(f"{name.value!r} stands here twice", name)
            marks[*key, name.value] = (name.start_mark.line + 1, name.start_mark.column + 1)
            made[name.value] = _value(loader, value, (*key, name.value), marks)
        return made
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*key, index), marks) for index, item in enumerate(node.value)]
    return loader.construct_object(node)


def _refuse(message: str, place: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, message, place.start_mark)


def _said(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
    return f"{where}: {getattr(error, 'problem', None) or error}"
