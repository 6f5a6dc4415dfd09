"""What programs take from `jina.serve.executors` of an Executor's facts."""

from __future__ import annotations

from typing import Any

#: The endpoint by which Jina asks whether an Executor answers at all.
DRY_RUN = "_jina_dry_run_"


def get_default_metas() -> dict[str, Any]:
    """The metas of an Executor that says nothing of itself."""
    return {"name": "", "description": "", "workspace": "", "py_modules": ""}
