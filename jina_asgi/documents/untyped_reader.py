"""Reads documents without their class, as dicts, for the process that has the class.

Nothing is refused here, as only the class knows what it accepts. Bytes and tensors in JSON are decoded if possible; in
answers secrets are hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jina_asgi.documents import field_plans
from jina_asgi.documents.conversions import Read, array, to_bytes
from jina_asgi.types import Field, Schema

#: Replaces a secret, as in pydantic.
STARS = "*" * 10


class PlanReaders:
    """The readers of a schema's documents, by name, as a document may contain its own class.

    Args:
        schema: the schema.
        leaf: returns the reader of a field; None for fields that are kept, except for their nested values.
    """

    def __init__(self, schema: Schema, leaf: Callable[[Field], Read | None]) -> None:
        self._schema, self._leaf = schema, leaf
        self._changed = field_plans.documents_with(schema, lambda field: leaf(field) is not None)
        self._made: dict[str, Read] = {}

    def of(self, name: str) -> Read:
        """The reader of one document of the class `name`."""
        if name not in self._changed:
            return _as_it_is
        if name not in self._made:
            self._made[name] = lambda value: self._made[name](value)  # a recursive class finds itself
            self._made[name] = self._document(name)
        return self._made[name]

    def _document(self, name: str) -> Read:
        found = {field.name: self._value(field) for field in self._schema.documents[name]}
        reads = {key: read for key, read in found.items() if read is not _as_it_is}

        def read(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {**value, **{key: convert(value[key]) for key, convert in reads.items() if key in value}}

        return read

    def _value(self, field: Field) -> Read:
        if (leaf := self._leaf(field)) is not None:
            return leaf
        if field.kind in ("doc", "docs") and field.doc is not None:
            read = self.of(field.doc)
            return read if field.kind == "doc" or read is _as_it_is else _each(read)
        if field.kind in ("list", "set", "dict") and field.items:
            read = self._value(field.items[-1])
            return read if read is _as_it_is else _each(read)
        if field.kind == "tuple":
            reads = [self._value(item) for item in field.items]
            return _as_it_is if all(read is _as_it_is for read in reads) else _in_turn(reads)
        return _as_it_is


def readers(schema: Schema) -> PlanReaders:
    """The readers of documents from JSON or msgpack."""
    return PlanReaders(schema, _binary)


def secret_hider(schema: Schema) -> Read | None:
    """Builds a function that hides a document's secrets; None if it has none."""
    found = PlanReaders(schema, _secret_mask).of(schema.name)
    return None if found is _as_it_is else found


def _binary(field: Field) -> Read | None:
    if field.kind == "bytes":
        return _or_unchanged(to_bytes, str)
    return _or_unchanged(lambda value: array(value, field), object) if field.kind == "tensor" else None


def _secret_mask(field: Field) -> Read | None:
    if field.secret or any(item.secret for item in field.items if field.kind == "union"):
        return lambda value: STARS if value is not None and value != "" else value
    return None


def _as_it_is(value: Any) -> Any:
    return value


def _or_unchanged(read: Read, kind: type) -> Read:
    def convert(value: Any) -> Any:
        if value is None or not isinstance(value, kind):
            return value
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError):
            return value  # the class reports the error

    return convert


def _each(read: Read) -> Read:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: read(item) for key, item in value.items()}
        return [read(item) for item in value] if isinstance(value, list) else value

    return convert


def _in_turn(reads: list[Callable[[Any], Any]]) -> Read:
    def convert(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(reads):
            return value
        return [read(item) for read, item in zip(reads, value, strict=True)]

    return convert
