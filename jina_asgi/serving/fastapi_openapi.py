"""Adds endpoints to a FastAPI host's OpenAPI document, with their schemas as components, like the host's own.

A route is made before its app is known, and has its schemas inline. A known app replaces them by references when it makes
its document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from jina_asgi.protocols.http.openapi import SHARED, operations
from jina_asgi.types import Endpoint

#: Marks an operation with its endpoint until an app's document is made.
_MARK = "x-jina-asgi"
_DEPTH = 12
_REFERENCE = "#/components/schemas/"
#: FastAPI has another schema of this name.
_OTHERS = {"HTTPValidationError": "InvalidDocs"}
_KEPT = ("requestBody", "responses", "parameters", "summary", "description")


def operation(endpoint: Endpoint, method: str, mark: str) -> dict[str, Any]:
    """The operation with all schemas inline, valid in any document."""
    schemas = dict(SHARED)
    made = operations(endpoint, schemas)[method]
    return {**{key: _inlined(made[key], schemas, ()) for key in _KEPT if key in made}, _MARK: mark}


def refer(app: FastAPI, endpoints: Mapping[str, Endpoint]) -> None:
    """Make an app's document refer to the schemas of these endpoints, by their marks."""
    made: Any = app.openapi
    if not isinstance(made, _Document):
        made = _Document(made)
        app.openapi = made  # type: ignore[method-assign]  # as FastAPI's manual extends the document
    made.endpoints.update(endpoints)
    app.openapi_schema = None  # one that was made before


class _Document:
    """`app.openapi`, with our schemas among the components."""

    def __init__(self, made: Any) -> None:
        self._made, self._done = made, None
        self.endpoints: dict[str, Endpoint] = {}

    def __call__(self) -> dict[str, Any]:
        document: Any = self._made()
        if document is not self._done:
            self._refer(document)
            self._done = document
        return document  # type: ignore[no-any-return]  # the host's own

    def _refer(self, document: dict[str, Any]) -> None:
        ours = dict(SHARED)
        found: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for path, methods in document.get("paths", {}).items():
            known: dict[str, Any] = {}
            for method, its in methods.items():
                endpoint = self.endpoints.get(its.pop(_MARK, "")) if isinstance(its, dict) else None
                if endpoint is not None:
                    known = known or operations(endpoint, ours, path)
                    found.append((its, known[method]))
        if not found:
            return
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        names = _free(ours, schemas)
        schemas.update({names[name]: _renamed(schema, names) for name, schema in ours.items()})
        for its, made in found:
            _replace(its, _renamed(made, names))


def _replace(operation: dict[str, Any], made: Mapping[str, Any]) -> None:
    """Replaces inline schemas in an operation by references; additions of the host's dependencies stay."""
    if "requestBody" in made:
        operation["requestBody"] = made["requestBody"]
    operation["responses"] = {**operation.get("responses", {}), **made["responses"]}
    if own := made.get("parameters"):
        names = {(parameter["in"], parameter["name"]) for parameter in own}
        others = [other for other in operation["parameters"] if (other["in"], other["name"]) not in names]
        operation["parameters"] = [*others, *own]


def _free(ours: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """Names for our schemas that the host's document does not use, or uses for the same schema."""
    names: dict[str, str] = {}
    for name, schema in ours.items():
        free = _OTHERS.get(name, name)
        while free in names.values() or taken.get(free, schema) != schema:
            free += "_"
        names[name] = free
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A schema with its references renamed."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _renamed(item, names) for key, item in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REFERENCE):  # `$ref` may also be the name of a property
        renamed["$ref"] = _REFERENCE + names[reference.removeprefix(_REFERENCE)]
    return renamed


def _inlined(value: Any, schemas: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """A value with every reference to our schemas inlined; a recursive one becomes an object of that title."""
    if isinstance(value, list):
        return [_inlined(item, schemas, within) for item in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):  # `$ref` may also be the name of a property
        return {key: _inlined(item, schemas, within) for key, item in value.items()}
    name = reference.rpartition("/")[2]
    if name in within or len(within) > _DEPTH:
        return {"type": "object", "title": name}
    return _inlined({**schemas[name], **_beside(value)}, schemas, (*within, name))


def _beside(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The keys beside a reference, such as a description or a default."""
    return {key: value for key, value in reference.items() if key != "$ref"}
