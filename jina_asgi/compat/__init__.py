"""Runs programs written for Jina unchanged: `from jina import Executor` imports this library.

`python -m jina_asgi.compat script.py` runs a program in this way; `install()` does the same inside a program. Both put a
folder on Python's path that contains only this library's `jina`, so that it also works in all processes started from
there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["install"]

#: The folder that is put on the path.
FOLDER = str(Path(__file__).parent / "on_path")
_ROOT = Path(__file__).parents[2]


def install() -> None:
    """Makes `jina` this library from now on, here and in every process started from here.

    Call it before anything imports `jina`. It changes `sys.path` and the environment's `PYTHONPATH`; calling it again
    does nothing.

    Raises:
        RuntimeError: another `jina` was imported already, and parts of the program may use it.
    """
    found = sys.modules.get("jina")
    if found is not None and not (place := str(getattr(found, "__file__", ""))).startswith(FOLDER + os.sep):
        raise RuntimeError(
            f"another jina has been imported already, from {place or 'somewhere'}; call jina_asgi.compat.install() before"
            " the first import of jina, or start the program with: python -m jina_asgi.compat"
        )
    if FOLDER not in sys.path:
        sys.path.insert(0, FOLDER)
    os.environ["PYTHONPATH"] = python_path(os.environ.get("PYTHONPATH", ""))


def python_path(before: str) -> str:
    """A `PYTHONPATH` that starts with that folder; it ends with this package's folder, if the package is not installed."""
    entries = [entry for entry in before.split(os.pathsep) if entry and entry != FOLDER]
    if _ROOT.name not in ("site-packages", "dist-packages") and str(_ROOT) not in entries:
        entries.append(str(_ROOT))
    return os.pathsep.join([FOLDER, *entries])
