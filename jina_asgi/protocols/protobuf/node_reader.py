"""Converts protobuf's messages to plain values, as parsed from JSON or msgpack: one dict for each document.

Unknown fields of a document are dropped, as in Jina.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jina_asgi.documents import field_plans, pydantic_facts, tensors
from jina_asgi.types import Field, Schema

_ANY = Field("", "json")


class NodeReader:
    """Reads the documents of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._fields = {name: _fields_of(schema, name) for name in schema.documents}
        self._open = {name for name in schema.documents if field_plans.keeps_extra(schema, name)}

    def field(self, document: str | None, name: str) -> Field | None:
        """The plan of a field; None if the field is dropped."""
        if document is None:
            return _ANY
        return self._fields[document].get(name) or (_ANY if document in self._open else None)

    def document(self, message: Any, name: str | None) -> dict[str, Any]:
        """The fields of a DocProto of a class of the schema; without a class, all fields.

        Raises:
            ValueError: a tensor's size is wrong.
        """
        found = ((key, node, self.field(name, key)) for key, node in message.data.items())
        return {key: self.value(node, field) for key, node, field in found if field is not None}

    def value(self, node: Any, field: Field) -> Any:
        """The value of a NodeProto; raises as `document` does."""
        content = node.WhichOneof("content")
        if content is None:
            return None
        value = getattr(node, content)
        if content == "ndarray":
            return _array(value.dense)
        if content == "doc":
            return self.document(value, field.doc if field.kind == "doc" else None)
        if content == "doc_array":
            name = field.doc if field.kind == "docs" else _item(field).doc
            return [self.document(doc, name) for doc in value.docs]
        if content in ("list", "tuple", "set"):
            return self._items(content, value.data, field)
        if content == "dict":
            item = _item(field)
            return {key: self.value(inner, item) for key, inner in value.data.items()}
        return value

    def _items(self, content: str, nodes: Iterable[Any], field: Field) -> Any:
        if field.kind == "tuple" and len(field.items) == len(list(nodes)):
            made = [self.value(node, item) for node, item in zip(nodes, field.items, strict=True)]
        else:
            item = _item(field)
            made = [self.value(node, item) for node in nodes]
        if content == "list":
            return made
        try:
            return tuple(made) if content == "tuple" else set(made)
        except TypeError:  # items without a hash, such as dicts: left to pydantic
            return made


def _item(field: Field) -> Field:
    """The plan of the items of a list, a set or a dict."""
    return field.items[-1] if field.kind in ("list", "set", "dict") and field.items else _ANY


def _array(dense: Any) -> Any:
    buffer = dense.buffer
    return tensors.of_named(dense.dtype, dense.shape, len(buffer))(buffer, 0, len(buffer))


def _fields_of(schema: Schema, name: str) -> dict[str, Field]:
    model = schema.models.get(name)
    plan = schema.documents[name]
    if model is None:
        return {field.name: field for field in plan}
    return {accepted: field for field in plan for accepted in pydantic_facts.accepted_names(model, field.name)}
