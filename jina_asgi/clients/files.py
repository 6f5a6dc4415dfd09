"""Reads a Client's `files`, and makes the parts of a form of them."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jina_asgi.excepts import BadClientInput

#: A field's name; the file's name, bytes and media type.
Part = tuple[str, tuple[str | None, bytes, str]]
_WANTED = "a path, bytes, an open binary file, (name, content) or (name, content, media type), or a list of these"


def parts_of(files: Any) -> tuple[Part, ...]:
    """Reads the files of one request, one form part for each.

    Args:
        files: by field: a file in any supported form, or a list of files for a field that takes several, or for
            several documents.

    Raises:
        BadClientInput: a value of another type, or a file that cannot be read.
    """
    if not isinstance(files, Mapping):
        raise BadClientInput(f"expected files as a dict by field, got {type(files).__name__}")
    return tuple(
        (str(name), _file(name, given))
        for name, several in files.items()
        for given in (several if isinstance(several, list) else [several])
    )


def _file(field: str, given: Any) -> tuple[str | None, bytes, str]:
    if isinstance(given, tuple) and len(given) in (2, 3):
        name, content, *media = given
        return name, _content(field, content)[1], media[0] if media else _media(name)
    name, content = _content(field, given)
    return name, content, _media(name)


def _content(field: str, given: Any) -> tuple[str, bytes]:
    """The file's name and its content."""
    if isinstance(given, bytes | bytearray | memoryview):
        return field, bytes(given)
    try:
        if isinstance(given, str | Path):
            return Path(given).name, Path(given).read_bytes()
        if hasattr(given, "read"):
            content, name = given.read(), getattr(given, "name", field)
            if isinstance(content, bytes):
                return Path(name).name if isinstance(name, str) else field, content
    except OSError as error:
        raise BadClientInput(f"files[{field!r}] cannot be read: {error}") from error
    raise BadClientInput(f"files[{field!r}]: expected {_WANTED}, got {type(given).__name__}")


def _media(name: str | None) -> str:
    found = mimetypes.guess_type(name)[0] if name else None
    return found or "application/octet-stream"
