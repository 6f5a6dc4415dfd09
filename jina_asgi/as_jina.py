"""Whether `jina` is this library in this process: then what Jina takes with a warning is taken with one."""

from __future__ import annotations

import sys
from types import ModuleType

_MARK = "__jina_asgi__"


def mark(module: ModuleType) -> None:
    """Note that this `jina` is this library."""
    setattr(module, _MARK, True)


def as_jina() -> bool:
    """Whether this process runs a program written for Jina."""
    return getattr(sys.modules.get("jina"), _MARK, False)
