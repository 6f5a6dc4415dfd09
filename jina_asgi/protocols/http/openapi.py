"""Makes the OpenAPI document of endpoints, and a page that shows it without loading anything from other hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from jina_asgi.errors import UnsupportedMedia
from jina_asgi.protocols.http.form_fields import OCTETS, holds_files
from jina_asgi.protocols.http.uploads import FORM, field_of
from jina_asgi.types import Endpoint, Schema

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


_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_SCALARS = ("str", "int", "float", "bool")
_ERRORS = {
    "400": "The body is not JSON or msgpack",
    "413": "Over a limit",
    "415": "Another content type",
    "500": "The Executor failed",
    "503": "Busy or not ready; Retry-After says when to come back",
    "504": "The deadline in X-Request-Timeout passed",
}


def document(endpoints: Mapping[str, Endpoint], *, title: str, description: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document. Schemas are named as Jina names them: `foo_input_model`, `foo_output_model`."""
    schemas = dict(SHARED)
    paths: dict[str, Any] = {}
    for name, endpoint in endpoints.items():
        paths[name] = operations(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def operations(endpoint: Endpoint, schemas: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The operations of one endpoint; the schemas that they refer to are added to `schemas`, which has `SHARED`.

    `path` is its path, for the names of its schemas; default: its own name.
    """
    stem = _NOT_IN_NAMES.sub("_", (path or endpoint.name).strip("/"))
    while f"{stem}_input_model" in schemas:  # `/a/b` and `/a_b`
        stem += "_"
    body, answer = f"{stem}_input_model", f"{stem}_output_model"
    document = _reference(endpoint.input, schemas)
    output = _reference(endpoint.output, schemas)
    parameters = _parameters(endpoint, schemas)
    required = ["data", "parameters"] if endpoint.parameters and endpoint.parameters.required else ["data"]
    data = document if endpoint.kind == "stream" else {"anyOf": [{"items": document, "type": "array"}, document]}
    schemas[body] = {
        "type": "object",
        "title": body,
        "required": required,
        "properties": {
            "data": {**data, "title": "Data"},
            "parameters": parameters,
            "header": {"anyOf": [{"$ref": "#/components/schemas/Header"}, {"type": "null"}]},
        },
    }
    operation: dict[str, Any] = {
        "summary": (endpoint.description.partition("\n")[0] or f"Endpoint {endpoint.name}"),
        "description": endpoint.description,
        "operationId": f"post_{stem}_post",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}},
                **contents(endpoint, schemas[document["$ref"].rpartition("/")[2]], parameters),
            },
        },
        "responses": {"422": _response("Validation Error", "HTTPValidationError"), **_error_responses()},
    }
    if endpoint.kind == "stream":
        events = {"description": "One `update` event a document, then `end`", "content": _events(output)}
        operation["responses"]["200"] = events
        get = {**operation, "operationId": f"get_{stem}_get", "parameters": _query(endpoint)}
        del get["requestBody"]
        return {"get": get, "post": operation}
    schemas[answer] = {
        "type": "object",
        "title": answer,
        "required": ["data", "parameters", "header"],
        "properties": {
            "data": {"items": output, "type": "array", "title": "Data"},
            "parameters": {"type": "object", "title": "Parameters"},
            "header": {"$ref": "#/components/schemas/Header"},
        },
    }
    operation["responses"]["200"] = _response("Successful Response", answer)
    return {"post": operation}


def _reference(schema: Schema, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to a document's schema; two documents of one name get two names."""
    return {"$ref": f"#/components/schemas/{_add(schema.name, schema.json_schema, schemas)}"}


def _parameters(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    if endpoint.parameters is None:
        return {"anyOf": [{"type": "object"}, {"type": "null"}], "title": "Parameters"}
    name = _add(endpoint.parameters.name, endpoint.parameters.json_schema, schemas)
    reference = {"$ref": f"#/components/schemas/{name}"}
    return reference if endpoint.parameters.required else {"anyOf": [reference, {"type": "null"}]}


def _add(name: str, json_schema: Mapping[str, Any], schemas: dict[str, Any]) -> str:
    """Adds a schema, with those that it refers to, to `schemas`, and returns its name there; equal ones are shared."""
    own = dict(json_schema)
    wanted: dict[str, Any] = dict(own.pop("$defs", {}))
    reference = own.get("$ref", "") if set(own) == {"$ref"} else ""
    root = reference.rpartition("/")[2] or name
    while not reference and root in wanted:
        root += "_"
    wanted.setdefault(root, own)
    names = {key: _NOT_IN_NAMES.sub("_", key) for key in wanted}
    while True:
        moved = {names[key]: _moved(schema, names) for key, schema in wanted.items()}
        taken = [key for key, free in names.items() if schemas.get(free, moved[free]) != moved[free]]
        if not taken:
            schemas.update(moved)
            return names[root]
        for key in taken:
            while names[key] in schemas or list(names.values()).count(names[key]) > 1:
                names[key] += "_"


def _moved(value: Any, renamed: Mapping[str, str]) -> Any:
    """A schema with its `#/$defs/` references pointing into the components."""
    if isinstance(value, dict):
        moved = {key: _moved(item, renamed) for key, item in value.items()}
        reference = moved.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            name = reference.removeprefix("#/$defs/")
            moved["$ref"] = f"#/components/schemas/{renamed.get(name, name)}"
        return moved
    return [_moved(item, renamed) for item in value] if isinstance(value, list) else value


def _query(endpoint: Endpoint) -> list[dict[str, Any]]:
    """The scalar fields of a document, and its lists of scalars, as a query holds them."""
    schema = endpoint.input.json_schema
    root = schema.get("$defs", {}).get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    properties = root.get("properties", {})
    return [
        {"name": f.name, "in": "query", "required": f.required, "schema": properties.get(f.name, {})}
        for f in endpoint.input.fields
        if f.kind in _SCALARS or (f.kind in ("list", "set") and all(item.kind in _SCALARS for item in f.items))
    ]


def _events(output: dict[str, Any]) -> dict[str, Any]:
    return {
        "text/event-stream": {
            "schema": {"type": "string", "contentMediaType": "application/json", "contentSchema": output}
        }
    }


def _response(description: str, name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error_responses() -> dict[str, Any]:
    return {status: _response(text, "Problem") for status, text in _ERRORS.items()}


_HEADER = {
    "type": "object",
    "title": "Header",
    "required": ["request_id"],
    "properties": {
        "request_id": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "target_executor": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
}
_ERROR = {
    "type": "object",
    "required": ["type", "id", "retriable"],
    "properties": {"type": {"type": "string"}, "id": {"type": "string"}, "retriable": {"type": "boolean"}},
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "required": ["detail", "error"],
    "properties": {"detail": {"type": "string"}, "error": _ERROR},
}
_ENTRIES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "msg": {"type": "string"},
            "type": {"type": "string"},
        },
    },
}
_VALIDATION = {
    "type": "object",
    "title": "HTTPValidationError",
    "required": ["detail", "error"],
    "properties": {
        "detail": {"anyOf": [_ENTRIES, {"type": "string"}]},
        "error": _ERROR,
    },
}
#: What every endpoint's operations refer to.
SHARED: Mapping[str, Any] = {"Header": _HEADER, "HTTPValidationError": _VALIDATION, "Problem": _PROBLEM}

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Endpoints</title>
<style>
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
  body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
  details { border: 1px solid #8884; border-radius: 8px; margin: .6rem 0; padding: .5rem .9rem }
  summary { cursor: pointer } b { font: 600 12px ui-monospace, monospace; margin-right: .6em; color: #0a7 }
  label { display: block; margin: .3rem 0 }
  pre { background: #8881; border-radius: 6px; padding: .7rem; overflow: auto; font-size: 12px }
</style>
<h1></h1><p id="about"></p><main></main>
<script>
const base = location.pathname.replace(/\\/docs\\/?$/, "")
const make = (name, text, parent) => {
  const element = document.createElement(name); element.textContent = text; parent.append(element); return element
}
fetch(base + "/openapi.json").then(answer => answer.json()).then(api => {
  document.title = document.querySelector("h1").textContent = api.info.title
  document.querySelector("#about").textContent = api.info.description
  const find = schema => !schema ? null : schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, operation] of Object.entries(methods)) {
    const box = make("details", "", document.querySelector("main")), line = make("summary", "", box)
    make("b", method.toUpperCase(), line); line.append(path)
    make("p", operation.description || operation.summary, box)
    const show = (title, schema) => schema && (make("h4", title, box), make("pre", JSON.stringify(find(schema), null, 2), box))
    const form = operation.requestBody?.content["multipart/form-data"]?.schema
    if (form) {
      const fields = make("form", "", box)
      for (const [name, schema] of Object.entries(form.properties)) {
        const input = make("input", "", make("label", name + " ", fields))
        input.name = name
        if ((schema.items ?? schema).format === "binary") { input.type = "file"; input.multiple = true }
      }
      make("button", "Send", fields)
      const answer = make("pre", "", box)
      fields.addEventListener("submit", async event => {
        event.preventDefault()
        const given = new FormData(fields), body = new FormData()
        for (const [name, value] of given) if (value.size ?? value.length) body.append(name, value)
        answer.textContent = await (await fetch(base + path, { method: "POST", body })).text()
      })
    }
    show("Request", operation.requestBody?.content["application/json"].schema)
    show("Answer", operation.responses["200"].content["application/json"]?.schema)
  }
})
</script></html>
"""
