"""Makes an example of a document, or of parameters, from its schema, to try an endpoint. Pure.

Examples in the schema are used first; else the example has the required fields only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jina_asgi.types import Field, Schema

_TEXTS = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "email": "someone@example.com",
    "time": "00:00:00",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_PLAIN: Mapping[str, Any] = {"bool": True, "bytes": "", "dict": {}, "float": 1.0, "int": 1, "json": None, "str": "text"}


def document_example(schema: Schema) -> Any:
    """Makes a document as JSON values."""
    return _document(schema.name, schema.fields, schema, schema.json_schema)


def value_example(json_schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """Makes a value for a JSON Schema, whose `$defs` are in `root`."""
    root = json_schema if root is None else root
    found = _followed(json_schema, root)
    given = _given(found)
    if given is not None:
        return given
    for key in ("anyOf", "oneOf", "allOf"):
        if found.get(key):
            return value_example(found[key][0], root)
    kind = found.get("type")
    if kind == "object":
        properties = found.get("properties", {})
        return {name: value_example(properties.get(name, {}), root) for name in found.get("required", ())}
    if kind == "array" and "prefixItems" in found:
        return [value_example(item, root) for item in found["prefixItems"]]
    if kind == "array":
        return [value_example(found.get("items", {}), root)] * int(found.get("minItems", 0))
    return _scalar(str(kind), found)


def _scalar(kind: str, found: Mapping[str, Any]) -> Any:
    if kind in ("integer", "number"):
        step = 1 if kind == "integer" else 0.5
        above, below = found.get("exclusiveMinimum"), found.get("exclusiveMaximum")
        least = found.get("minimum") if above is None else above + step
        most = found.get("maximum") if below is None else below - step
        wanted: Any = 1 if least is None else max(1, least)
        return wanted if most is None else min(wanted, most)
    if kind == "string":
        text = _TEXTS.get(str(found.get("format")), "text")
        return text.ljust(int(found.get("minLength", 0)), "x")[: found.get("maxLength")]
    return {"boolean": True, "null": None}.get(kind)


def _document(name: str, fields: tuple[Field, ...], schema: Schema, json_schema: Mapping[str, Any]) -> Any:
    found = _followed(json_schema, schema.json_schema)
    given = _given(found)
    if given is not None:
        return given
    properties = found.get("properties", {})
    return {
        field.name: _value(field, schema, properties.get(field.name, {}))
        for field in fields
        if field.required or "examples" in properties.get(field.name, {})
    }


def _value(field: Field, schema: Schema, json_schema: Mapping[str, Any]) -> Any:
    found = _followed(json_schema, schema.json_schema)
    if field.kind == "tensor":  # docarray's own example of a tensor is text
        return _tensor([1 if length is None else length for length in field.shape or (1,)])
    given = _given(found)
    if given is not None:
        return given
    if field.kind in ("doc", "docs") and field.doc is not None:
        at = {"$ref": f"#/$defs/{field.doc}"} if field.kind == "docs" or not found else found
        made = _document(field.doc, schema.documents[field.doc], schema, at)
        return made if field.kind == "doc" else [made]
    if field.kind == "union":
        return _value(field.items[0], schema, (found.get("anyOf") or [{}])[0])
    if field.kind == "tuple":
        return [_value(item, schema, {}) for item in field.items]
    if field.kind in ("list", "set"):
        return [_value(item, schema, found.get("items", {})) for item in field.items[:1]]
    if any(key in found for key in ("type", "anyOf", "allOf")):
        return value_example(found, schema.json_schema)
    return _PLAIN[field.kind]


def _tensor(shape: list[int]) -> Any:
    if not shape:
        return 0.0
    return [_tensor(shape[1:]) for _ in range(shape[0])]


def _given(found: Mapping[str, Any]) -> Any:
    """The values that the schema itself offers: examples, default, constant, choices."""
    for key in ("examples", "enum"):
        if isinstance(found.get(key), list) and found[key]:
            return found[key][0]
    return next((found[key] for key in ("example", "const", "default") if found.get(key) is not None), None)


def _followed(json_schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolves a reference."""
    for _ in range(10):  # a reference to itself has no example
        name = str(json_schema.get("$ref", "")).rpartition("/")[2]
        if not name or name not in root.get("$defs", {}):
            break
        json_schema = root["$defs"][name]
    return json_schema
