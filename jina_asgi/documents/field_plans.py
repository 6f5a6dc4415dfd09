"""Answers questions about a field plan and all its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jina_asgi.types import Field, Schema


def documents_with(schema: Schema, holds: Callable[[Field], bool]) -> set[str]:
    """The names of the documents that have such a field, themselves or in a nested document."""
    return holding(
        schema, {n for n, plan in schema.documents.items() if any(holds(p) for f in plan for p in _parts(f))}
    )


def holding(schema: Schema, names: set[str]) -> set[str]:
    """These documents, and all in which they are nested."""
    fields = {name: [part for field in plan for part in _parts(field)] for name, plan in schema.documents.items()}
    found = {*names}
    while more := {n for n, parts in fields.items() if n not in found and any(part.doc in found for part in parts)}:
        found |= more
    return found


def _parts(field: Field) -> Iterator[Field]:
    yield field
    for item in field.items:
        yield from _parts(item)


def takes_path(field: Field) -> bool:
    """Whether a field, or its items, can hold the path of an uploaded file."""
    return field.file or any(map(takes_path, field.items))


def takes_paths(schema: Schema) -> bool:
    """Whether a document has a field of its own that can hold the path of an uploaded file."""
    return any(map(takes_path, schema.fields))


def keeps_extra(schema: Schema, name: str) -> bool | None:
    """Whether a class keeps unknown fields (True), refuses them (False) or drops them (None)."""
    described: Any = schema.json_schema if name == schema.name else schema.json_schema.get("$defs", {}).get(name, {})
    allowed = described.get("additionalProperties")
    return allowed if isinstance(allowed, bool) else None


def nests(schema: Schema) -> bool:
    """Whether values can nest to any depth: untyped values, or documents within documents of their class."""
    names = schema.documents
    return bool(documents_with(schema, _is_untyped)) or any(
        name in documents_with(schema, _holds(name)) for name in names
    )


def is_binary(field: Field) -> bool:
    """Whether a field holds bytes or a tensor, for which JSON has no type."""
    return field.kind in ("bytes", "tensor")


def _is_untyped(field: Field) -> bool:
    return field.kind == "json" or (field.kind in ("list", "set", "dict") and not field.items)


def _holds(name: str) -> Callable[[Field], bool]:
    return lambda field: field.doc == name
