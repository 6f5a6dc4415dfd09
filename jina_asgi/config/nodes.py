"""Converts YAML nodes to plain data, with the position of every part.

Values follow YAML 1.2; in a program written for Jina YAML 1.1, as in Jina. Aliases and merges are resolved up to a
limit of values, so that a small file cannot expand without end.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import yaml

from jina_asgi.settings.document import Key
from jina_asgi.settings.jina_mode import as_jina

#: The most values that a file's aliases may repeat in total.
REPEATED = 100_000


class Dumper(yaml.SafeDumper):
    """Writes no aliases, and quotes text that this reader, or one of YAML 1.1, would read as another type."""

    yaml_implicit_resolvers = {first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _YamlLoader(yaml.SafeLoader):
    """Resolves scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}


class _LoaderOfJina(yaml.SafeLoader):
    """Resolves scalars as Jina does: by YAML 1.1, except for `on` and `off`; dates are text here."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] in ("bool", "int", "float", "null")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        if first not in ("o", "O")
    }


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
    for _kind in (_YamlLoader, Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "bool", "int", "float", "null")}


def plain(text: str) -> tuple[Any, dict[Key, tuple[int, int]]]:
    """Parses YAML text to plain data, with the line and column of each part.

    Raises:
        yaml.YAMLError: it is not in the supported subset of YAML. RecursionError: it nests too deep.
    """
    loader = _LoaderOfJina(text) if as_jina() else _YamlLoader(text)
    reader = _Reader(loader)
    try:
        node = loader.get_single_node()
        return (None if node is None else reader.value(node, ())), reader.marks
    finally:
        loader.dispose()


class _Reader:
    """Converts nodes to values, records the position of each in `marks`, and counts the values that aliases repeat."""

    def __init__(self, loader: Any) -> None:
        self.marks: dict[Key, tuple[int, int]] = {}
        self._loader = loader
        self._read: set[int] = set()
        self._around: set[int] = set()
        self._repeated = 0

    def value(self, node: Any, key: Key) -> Any:
        """Converts a node to its value."""
        self.marks.setdefault(key, _place(node))
        self._count(node)
        custom = isinstance(node, yaml.MappingNode) and re.fullmatch(r"![A-Za-z_][\w.]*", node.tag) is not None
        if not custom and node.tag not in _TAGS:
            _refuse(f"the tag {node.tag!r} is not taken here", node)
        if isinstance(node, yaml.ScalarNode):
            try:
                return self._loader.construct_object(node)
            except (ValueError, OverflowError):  # Python cannot parse integers of thousands of digits
                _refuse("this number is too long", node)
        self._around.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            made: Any = [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
        else:
            made = {**({"jtype": node.tag[1:]} if custom else {}), **self._mapping(node, key, custom)}
        self._around.discard(id(node))
        return made

    def _mapping(self, node: Any, key: Key, custom: bool) -> dict[str, Any]:
        """Converts a mapping; its own keys override those that it merges."""
        merged, own = dict[str, Any](), dict[str, Any]()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                _refuse("expected a plain key", name)
            if name.value == "<<" and name.style is None:
                merged = {**self._merged(value, key), **merged}
                continue
            if name.value in own or (custom and name.value == "jtype"):
                _refuse(f"{name.value!r} stands here twice", name)
            self.marks[*key, name.value] = _place(name)
            own[name.value] = self.value(value, (*key, name.value))
        return {**merged, **own}

    def _merged(self, node: Any, key: Key) -> dict[str, Any]:
        """The keys that `<<` merges: of a mapping, or of several, of which the first with a key wins."""
        found: dict[str, Any] = {}
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(one, yaml.MappingNode):
                _refuse("expected a mapping, or a list of mappings, to merge", one)
            found = {**self.value(one, key), **found}
        return found

    def _count(self, node: Any) -> None:
        if id(node) in self._around:
            _refuse("this alias stands within what it repeats", node)
        if id(node) in self._read:
            self._repeated += 1
            if self._repeated > REPEATED:
                _refuse(f"aliases repeat more than {REPEATED} values", node)
        self._read.add(id(node))


def _place(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _refuse(message: str, place: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, message, place.start_mark)
