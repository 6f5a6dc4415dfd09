"""The names of `jina.serve.executors` about an Executor's metas."""

from __future__ import annotations

from typing import Any

#: The endpoint that Jina calls to check whether an Executor answers.
DRY_RUN = "_jina_dry_run_"


def get_default_metas() -> dict[str, Any]:
    """The default metas of an Executor."""
    return {"name": "", "description": "", "workspace": "", "py_modules": ""}
