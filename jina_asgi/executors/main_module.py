"""Runs the main program again in another process to find its classes, except what is below its `__main__` guard."""

from __future__ import annotations

import runpy
import sys
from types import ModuleType

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._raised import error_text

__all__ = ["AGAIN", "check_not_again", "is_running_again", "run_again"]

#: The name of the program's module there, as in multiprocessing.
AGAIN = "__mp_main__"

_running: list[str] = []


def run_again(file: str) -> ModuleType:
    """Runs the program in this file again; its module becomes the main module.

    Raises:
        DefinitionError: the program raises, or would start a server here too.
    """
    module = ModuleType(AGAIN)
    sys.modules[AGAIN] = sys.modules["__main__"] = module  # before it runs: its classes look up their module
    _running.append(file)
    try:
        found = runpy.run_path(file, run_name=AGAIN)
    except Exception as error:
        raise DefinitionError(
            f"{file} was run again to find its classes, and raised {error_text(error)}; what only the program"
            " itself shall do belongs below `if __name__ == '__main__':`"
        ) from error
    finally:
        _running.pop()
    module.__dict__.update(found)
    return module


def is_running_again() -> bool:
    """Whether the program is being run again at the moment."""
    return bool(_running)


def check_not_again(name: str) -> None:
    """Refuses to start a server while the program, which runs one already, is run again.

    Raises:
        DefinitionError: it is being run again.
    """
    if _running:
        raise DefinitionError(f"{name} would be served here too, in a replica of what the program itself serves")
