"""What an OpenAPI document says of a server's endpoints, for servers that describe them no better: Jina's own.

It names fields but not their types on the wire, so that every field is any JSON value, and nothing is checked here:
the server does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jina_asgi.executors.endpoints import RESERVED, normalised
from jina_asgi.types import Endpoint, EndpointKind, Field, Schema

_PREFIXES = ("#/components/schemas/", "#/definitions/")


def endpoints_of(document: Mapping[str, Any]) -> dict[str, Endpoint]:
    """The endpoints among the paths: those that take `data` by POST, and those that stream by GET."""
    schemas = document.get("components", {}).get("schemas", {})
    found = {}
    for path, operations in document.get("paths", {}).items():
        if normalised(path) != path or path in RESERVED or path.startswith("/-/"):
            continue
        endpoint = _endpoint(path, operations, schemas)
        if endpoint is not None:
            found[path] = endpoint
    return found


def streams_by_get(document: Mapping[str, Any]) -> frozenset[str]:
    """The paths that answer only GET: Jina's streams, which take no parameters."""
    return frozenset(path for path, operations in document.get("paths", {}).items() if "post" not in operations)


def _endpoint(path: str, operations: Mapping[str, Any], schemas: Mapping[str, Any]) -> Endpoint | None:
    kind: EndpointKind = "stream" if "get" in operations else "batch"
    if "post" in operations:
        document = _resolved(_body(operations["post"]), schemas).get("properties", {}).get("data")
    elif "get" in operations:
        document = _body(operations["get"]) or _queried(operations["get"])
    else:
        document = None
    if not document:
        return None
    stem = path.strip("/").replace("/", "_")
    return Endpoint(
        name=path,
        kind=kind,
        input=_schema(f"{stem}_input", document, schemas),
        output=_schema(f"{stem}_output", _answered(operations, schemas), schemas),
    )


def _body(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a request's body: Jina's streams have one, though they use GET."""
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return schema if isinstance(schema, dict) else {}


def _queried(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a document in a query, if there is one."""
    named = {entry["name"]: entry.get("schema", {}) for entry in operation.get("parameters", ()) if "name" in entry}
    return {"properties": named} if named else {}


def _answered(operations: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of an answer's documents; Jina's streams have none."""
    operation = operations.get("post", operations.get("get", {}))
    content = operation.get("responses", {}).get("200", {}).get("content", {})
    event = content.get("text/event-stream", {}).get("schema", {}).get("contentSchema")
    body = _resolved(content.get("application/json", {}).get("schema", {}), schemas)
    found = event or body.get("properties", {}).get("data", {})
    return found if isinstance(found, dict) else {}


def _schema(name: str, value: Mapping[str, Any], schemas: Mapping[str, Any]) -> Schema:
    """The plan of a value's documents: one, or a list."""
    for candidate in _candidates(value):
        resolved = _resolved(candidate, schemas)
        if "properties" in resolved:
            reference = str(candidate.get("$ref", "")).rpartition("/")[2]
            found = reference or str(resolved.get("title", name))
            fields = tuple(Field(key, "json", nullable=True, required=False) for key in resolved["properties"])
            return Schema(found, {found: fields}, _whole(resolved, schemas))
    return Schema(name, {name: ()}, {"type": "object", "title": name, "additionalProperties": True})


def _candidates(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield value
    if isinstance(value.get("items"), dict):
        yield value["items"]
    for option in value.get("anyOf", ()):
        yield from _candidates(option)


def _resolved(value: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolves a reference; returns other values unchanged."""
    name = str(value.get("$ref", "")).rpartition("/")[2]
    found = schemas.get(name, value) if name else value
    return found if isinstance(found, dict) else {}


def _whole(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with all referenced schemas under `$defs`."""
    wanted: dict[str, Any] = {}
    pending = [schema]
    while pending:
        for name in _references(pending.pop()):
            if name not in wanted and name in schemas:
                wanted[name] = schemas[name]
                pending.append(schemas[name])
    moved: dict[str, Any] = _moved(dict(schema))
    return {**moved, "$defs": {name: _moved(value) for name, value in wanted.items()}} if wanted else moved


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _moved(value: Any) -> Any:
    """A schema whose references point into its own `$defs`."""
    if isinstance(value, dict):
        return {key: _moved_reference(item) if key == "$ref" else _moved(item) for key, item in value.items()}
    return [_moved(item) for item in value] if isinstance(value, list) else value


def _moved_reference(reference: Any) -> Any:
    prefix = next((p for p in _PREFIXES if str(reference).startswith(p)), None)
    return reference if prefix is None else f"#/$defs/{reference.removeprefix(prefix)}"
