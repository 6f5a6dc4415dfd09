"""The names of `jina.serve.executors` about metas, and `@write`, which marks methods that change an Executor's state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("jina_asgi")

#: The endpoint that Jina calls to check whether an Executor answers.
DRY_RUN = "_jina_dry_run_"


def get_default_metas() -> dict[str, Any]:
    """The default metas of an Executor."""
    return {"name": "", "description": "", "workspace": "", "py_modules": ""}


def write(function: F | None = None) -> Any:
    """Returns the method unchanged, and logs a warning: state is not replicated here.

    Synchronous methods of an Executor run one at a time anyway, unless it has `allow_concurrent`.
    """

    def marked(method: F) -> F:
        logger.warning("@write on %s changes nothing here: state is not replicated", method.__qualname__)
        return method

    return marked if function is None else marked(function)
