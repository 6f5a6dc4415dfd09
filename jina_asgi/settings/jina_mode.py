"""Whether `jina` is this library in this process: then what Jina takes with a warning is taken with one."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

_MARK = "__jina_asgi__"


def mark(module: ModuleType) -> None:
    """Note that this `jina` is this library."""
    setattr(module, _MARK, True)


def as_jina() -> bool:
    """Whether this process runs a program written for Jina."""
    return getattr(sys.modules.get("jina"), _MARK, False)


def logger_of(name: str) -> Any:
    """Python's logger below this library's; for a program written for Jina with what Jina's has beside: `success`."""
    if not as_jina():
        return logging.getLogger(f"jina_asgi.{name}")
    from jina_asgi.settings.jina_logger import JinaLogger  # which no other program needs

    return JinaLogger(name)
