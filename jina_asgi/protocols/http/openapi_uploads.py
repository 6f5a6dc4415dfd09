"""Describes an endpoint's forms and files in OpenAPI, so that its page shows a button for each file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jina_asgi.errors import UnsupportedMedia
from jina_asgi.protocols.http.form_fields import OCTETS, holds_files
from jina_asgi.protocols.http.uploads import FORM, field_of
from jina_asgi.types import Endpoint

#: A file: `format` is for readers of older OpenAPI, `contentMediaType` is that of 3.1.
FILE: Mapping[str, Any] = {"type": "string", "format": "binary", "contentMediaType": OCTETS}
_RANGES = {OCTETS: OCTETS, "image/*": "image/png", "audio/*": "audio/wav"}


def contents(endpoint: Endpoint, document: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The content of request bodies by media type; empty if the endpoint's documents have no files.

    Args:
        endpoint: the endpoint.
        document, parameters: their schemas in the OpenAPI document.
    """
    fields = {field.name: field for field in endpoint.input.fields}
    if not any(map(holds_files, fields.values())):
        return {}
    known: Mapping[str, Any] = document.get("properties", {})
    properties = {name: _property(known.get(name, {}), holds_files(field)) for name, field in fields.items()}
    properties.setdefault("parameters", dict(parameters))
    form = {
        "type": "object",
        "description": "A name that comes several times makes as many documents, or a list where the field is one.",
        "properties": properties,
        "required": [name for name, field in fields.items() if field.required],
    }
    found = {FORM: {"schema": form}}
    for media, example in _RANGES.items():
        try:
            field_of(fields.values(), example, frozenset())
        except UnsupportedMedia:
            continue
        found[media] = {"schema": dict(FILE)}
    return found


def _property(schema: Mapping[str, Any], is_file: Literal["one", "several", ""]) -> dict[str, Any]:
    """The schema of a field in a form: a file, several files, or its JSON schema."""
    titled = {key: schema[key] for key in ("title", "description") if key in schema}
    if is_file == "one":
        return {**FILE, **titled}
    return {"type": "array", "items": dict(FILE), **titled} if is_file else dict(schema)
