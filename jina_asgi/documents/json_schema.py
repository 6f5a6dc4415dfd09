"""Makes the JSON Schema of a field plan, for classes whose own cannot be written (a tensor of symbolic shape)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jina_asgi.types import Field


def object_schema(title: str, fields: tuple[Field, ...]) -> dict[str, Any]:
    """The JSON Schema of a document with these fields; nested documents are under `$defs`."""
    properties = {field.name: _value_schema(field) for field in fields}
    required = [field.name for field in fields if field.required]
    return {"type": "object", "title": title, "properties": properties, "required": required}


@cache
def _plain_schemas() -> Mapping[str, dict[str, Any]]:
    return {
        "str": {"type": "string"},
        "int": {"type": "integer"},
        "float": {"type": "number"},
        "bool": {"type": "boolean"},
        "bytes": {"type": "string", "contentEncoding": "base64"},
        "tensor": {"type": "array", "items": {}},
        "list": {"type": "array"},
        "tuple": {"type": "array"},
        "set": {"type": "array", "uniqueItems": True},
        "dict": {"type": "object"},
        "json": {},
    }


def _value_schema(field: Field) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{field.doc}"}
    if field.kind == "doc":
        value: dict[str, Any] = reference
    elif field.kind == "docs":
        value = {"type": "array", "items": reference}
    elif field.kind == "union":
        value = {"anyOf": [_value_schema(item) for item in field.items]}
    else:
        value = dict(_plain_schemas()[field.kind])
        if field.items and field.kind in ("list", "set"):
            value["items"] = _value_schema(field.items[0])
        elif field.items and field.kind == "dict":
            value["additionalProperties"] = _value_schema(field.items[-1])
    return {"anyOf": [value, {"type": "null"}]} if field.nullable else value
