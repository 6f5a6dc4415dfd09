"""Parses YAML to plain data with the position of every key: from a path, a string, a mapping or a stream.

A small, safe subset: strings, numbers, true, false, null, lists and mappings. No tags except Jina's `!Name`, no
duplicate keys; `on`, `no` and dates are strings (`no` is false in a program written for Jina).

Converts YAML nodes to plain data, with the position of every part.

Values follow YAML 1.2; in a program written for Jina YAML 1.1, as in Jina. Aliases and merges are resolved up to a
limit of values, so that a small file cannot expand without end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.settings.document import Document, Key, is_stream
from jina_asgi.settings.jina_options import as_jina

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


#: The largest file that is read, in characters.
LIMIT = 1 << 20


def read(source: Any) -> Document:
    """Reads the document from a path, a YAML string, a mapping or an open file.

    Raises:
        DefinitionError: there is no such file, or it is not in the supported subset of YAML; names the position.
    """
    if isinstance(source, Mapping):
        return Document(dict(source), "the mapping", Path.cwd(), {})
    if is_stream(source):
        return _of_stream(source)
    if isinstance(source, str) and _is_text(source):
        return _parsed(source, "the YAML", Path.cwd())
    if not isinstance(source, str | os.PathLike):
        raise DefinitionError(f"expected a path, a string of YAML, a mapping or a stream, got {type(source).__name__}")
    if "://" in str(source):
        raise DefinitionError(f"{source}: expected a file of this machine; nothing is fetched from elsewhere")
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(4 * LIMIT + 1)  # in bytes, at most four for a character
    except (OSError, ValueError) as error:  # a name may hold characters that no path can
        raise DefinitionError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return _parsed(_decoded(content, str(path)), str(path), path.resolve().parent)


def read_value(text: str) -> Any:
    """Parses a text as one YAML value: a number, true, a list, a mapping, or the text itself.

    Raises:
        DefinitionError: it is not valid YAML.
    """
    return _parsed(text, "the value", Path.cwd()).data


def dumped(data: Mapping[str, Any]) -> str:
    """Writes plain data as YAML that `read` reads back unchanged.

    Raises:
        DefinitionError: it holds something other than plain data.
    """
    try:
        text: str = yaml.dump(dict(data), Dumper=Dumper, sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as error:
        raise DefinitionError(f"YAML cannot hold {safe_repr(error.args[-1])}: expected plain data") from error
    return text


def _of_stream(stream: Any) -> Document:
    name = str(getattr(stream, "name", "the stream"))
    folder = Path(name).resolve().parent if Path(name).is_file() else Path.cwd()
    try:
        content = stream.read(4 * LIMIT + 1)
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{name}: expected UTF-8: {error}") from error
    return _parsed(_decoded(content, name) if isinstance(content, bytes) else content, name, folder)


def _is_text(source: str) -> bool:
    """Whether a string is YAML itself rather than a path."""
    start = source.partition("/")[0]
    on_a_drive = re.match(r"[A-Za-z]:\\", source) is not None
    return "\n" in source or (":" in start and "://" not in source.partition(" ")[0] and not on_a_drive)


def _decoded(content: bytes, name: str) -> str:
    if len(content) > 4 * LIMIT:
        raise DefinitionError(f"{name}: expected at most {LIMIT} characters, got more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{name}: expected UTF-8: {error}") from error


def _parsed(text: str, name: str, folder: Path) -> Document:
    if len(text) > LIMIT:
        raise DefinitionError(f"{name}: expected at most {LIMIT} characters, got more")
    try:
        data, marks = plain(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DefinitionError(f"{name}{_describe_error(error, text)}") from error
    return Document(data, name, folder, marks)


def _describe_error(error: Exception, text: str) -> str:
    if isinstance(error, RecursionError):
        return ": expected lists and mappings that nest less deep"
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        return f":{line}:{column}: a character that YAML does not have: {error.character!r}"
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
    return f"{where}: {getattr(error, 'problem', None) or error}"
