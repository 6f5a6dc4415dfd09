"""What a YAML holds, with the place of every part, and what is wrong with it: all of it is told at once.

No YAML is read here (`files.py` does), so that whoever takes a document need not import what reads it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jina_asgi.errors import DefinitionError

Key = tuple[str | int, ...]


def is_stream(value: Any) -> bool:
    """Whether this is an open file; a class is none, though it may have a method `read`."""
    return not isinstance(value, type) and callable(getattr(value, "read", None))


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

    def part(self, key: Key) -> Document:
        """A part as a document of its own, whose places are those in this one."""
        marks = {place[len(key) :]: mark for place, mark in self._marks.items() if place[: len(key)] == key}
        return Document(self.at(key), self.name, self.folder, marks)

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
