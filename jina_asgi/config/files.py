"""Parses YAML to plain data with the position of every key: from a path, a string, a mapping or a stream.

A small, safe subset: strings, numbers, true, false, null, lists and mappings. No tags except Jina's `!Name`, no
duplicate keys; `on`, `no` and dates are strings (`no` is false in a program written for Jina). `nodes.py` converts the
values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from jina_asgi.config.nodes import Dumper, plain
from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.settings.document import Document, is_stream

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
