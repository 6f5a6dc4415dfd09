"""Where the files lie that a YAML, or an option, names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_repr

_OURS = str(Path(__file__).parents[1])


def folder_of_caller() -> Path | None:
    """The folder of the nearest module on the stack outside this library; None if it has no file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(_OURS):
            return path.resolve().parent if path.is_file() else None
        frame = frame.f_back
    return None


def beside_caller(source: Any) -> Any:
    """The path of a YAML; one that is not in the working directory is looked for beside the calling module."""
    if not isinstance(source, str | os.PathLike) or not str(source).endswith((".yml", ".yaml")) or "\n" in str(source):
        return source
    folder = None if Path(source).exists() else folder_of_caller()
    return beside if folder is not None and (beside := folder / source).is_file() else source


def find_file(name: str, folder: Path, search: Sequence[str]) -> Path:
    for start in (folder, *(folder / path for path in search)):
        try:
            if (found := (start / name).resolve()).is_file():
                return found
        except (OSError, ValueError) as error:
            raise DefinitionError(f"{safe_repr(name)}: {getattr(error, 'strerror', None) or error}") from error
    looked = f" or in {', '.join(search)}" if search else ""
    raise DefinitionError(f"{folder / name}: No such file{looked}")


def placed(name: str, start: Path, to: Path | None) -> str:
    """A path as a YAML file in the folder `to` should write it: relative only if it lies below that folder."""
    path = Path(os.path.abspath(start / name))
    if not path.exists():  # it was found in one of `extra_search_paths`
        return name
    return path.relative_to(to).as_posix() if to is not None and path.is_relative_to(to) else str(path)
