"""A parsed YAML file with the position of every part; reports all its mistakes at once.

YAML is parsed in `config.files`, so that code which only uses documents need not import the parser.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jina_asgi.errors import DefinitionError

Key = tuple[str | int, ...]


def is_stream(value: Any) -> bool:
    """Whether a value is an open file; a class is not, even if it has a method `read`."""
    return not isinstance(value, type) and callable(getattr(value, "read", None))


class Document:
    """The content of a YAML file, the positions of its parts, and the mistakes found in them.

    Attributes:
        data: the plain data.
        folder: the folder that relative paths in it start from.
        problems: the mistakes found, each with its position.
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

    def part(self, key: Key) -> Document:
        """A part as a document of its own; its positions are those in this file."""
        marks = {place[len(key) :]: mark for place, mark in self._marks.items() if place[: len(key)] == key}
        return Document(self.at(key), self.name, self.folder, marks)

    def where(self, key: Key) -> str:
        """The file, line and column of a part, or of the nearest part around it."""
        while key and key not in self._marks:
            key = key[:-1]
        line, column = self._marks.get(key, (0, 0))
        return f"{self.name}:{line}:{column}" if line else self.name

    def complain(self, key: Key, message: str) -> None:
        """Records a mistake in a part."""
        self.problems.append(f"{self.where(key)}: {message}")

    def unknown(self, key: Key, known: Iterable[str]) -> None:
        """Records an unknown key, with the nearest known one."""
        names = list(known)
        near = difflib.get_close_matches(str(key[-1]), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        self.complain(key, f"unknown key {key[-1]!r}; {hint}")

    def check(self) -> None:
        """Raises all recorded mistakes at once.

        Raises:
            DefinitionError: there are mistakes.
        """
        if self.problems:
            raise DefinitionError("\n".join(self.problems))
