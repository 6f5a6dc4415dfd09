"""Detects programs written for Jina, in which `jina` is this library; they are treated as leniently as by Jina."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

_MARK = "__jina_asgi__"


def mark(module: ModuleType) -> None:
    """Marks a module `jina` as this library."""
    setattr(module, _MARK, True)


def as_jina() -> bool:
    """Whether this process runs a program written for Jina."""
    return getattr(sys.modules.get("jina"), _MARK, False)


def logger_of(name: str) -> Any:
    """A logger below this library's; in a program written for Jina it has Jina's `success` too."""
    if not as_jina():
        return logging.getLogger(f"jina_asgi.{name}")
    from jina_asgi.settings.jina_logger import JinaLogger  # only programs written for Jina need it

    return JinaLogger(name)
