"""What answers, by what names it: a class, an import path, or YAML of an Executor, a Deployment or a Flow."""

from __future__ import annotations

from typing import Any

from jina_asgi.config import Reading, is_yaml, opened
from jina_asgi.deployment import Deployment
from jina_asgi.flow import Flow
from jina_asgi.yaml_document import Document


def source_of(uses: Any, *, expected: tuple[str, ...] = (), **options: Any) -> Deployment | Flow:
    """The Flow of a Flow's YAML; else a Deployment.

    Args:
        uses: an Executor class, its import path, or YAML.
        expected: what the YAML may be of ("Executor", "Deployment", "Flow"); nothing: of any.
        options: those of the Deployment or the Flow, over what the YAML says.

    Raises:
        DefinitionError: it is none, or has mistakes, each with its file, line and column.
    """
    if not is_yaml(uses):
        return Deployment(uses, **options)
    found = opened(uses, {}, Reading())
    jtype = found.data.get("jtype")
    kind = jtype if jtype in ("Deployment", "Flow") else "Executor"
    if expected and kind not in expected:
        found.complain(("jtype",), f"expected the YAML of {_a(' or '.join(expected))}, got that of {_a(kind)}")
        found.check()
    return _loaded(found, kind, options)


def _loaded(found: Document, kind: str, options: dict[str, Any]) -> Deployment | Flow:
    if kind == "Flow":
        return Flow.load_config(found, **options)
    return Deployment.load_config(found, **options) if kind == "Deployment" else Deployment(found, **options)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
