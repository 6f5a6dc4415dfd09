"""Endpoints to Jina's EndpointsProto and back: names, kinds, and the JSON Schemas of documents and parameters."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from jina_asgi.protocols.protobuf.messages import DRY_RUN, EndpointsProto
from jina_asgi.types import Endpoint, EndpointKind, Field, ParametersSchema, Schema

#: The method that describes endpoints to our own clients: JSON, and exact where Jina's discovery is not.
ENDPOINTS = "/jina_asgi.Endpoints/describe"


def described(endpoints: Mapping[str, Endpoint]) -> Any:
    """The EndpointsProto of some endpoints.

    A Jina gateway makes classes of the schemas, and compares them with those of an Executor's neighbours, also for the dry
    run with which it checks an Executor.
    """
    schemas = {name: _schemas(endpoint) for name, endpoint in endpoints.items()}
    schemas[DRY_RUN.strip("/")] = _endpoint_schemas(_legacy(), _legacy(), "batch", None)
    message = EndpointsProto(endpoints=list(schemas))
    message.schemas.update(schemas)
    return message


def endpoints_of(message: Any) -> dict[str, Endpoint]:
    """The endpoints in an EndpointsProto of an Executor, or of a Flow's gateway.

    It has the documents' JSON Schemas, and not their encoded types: so every field accepts any value here, and the server
    validates.
    """
    schemas = MessageToDict(message.schemas)
    names = [name for name in message.endpoints if name.strip("/") != DRY_RUN.strip("/")]
    return {name: _endpoint(name, _mapping(schemas.get(name))) for name in names if name.startswith("/")}


def _endpoint(name: str, said: Mapping[str, Any]) -> Endpoint:
    kind: EndpointKind = "batch"
    if said.get("is_generator"):
        kind = "stream"
    elif said.get("is_singleton_doc"):
        kind = "single"
    stem = name.strip("/").replace("/", "_")
    return Endpoint(
        name=name,
        kind=kind,
        input=_plan(f"{stem}_input", _mapping(said.get("input"))),
        output=_plan(f"{stem}_output", _mapping(said.get("output"))),
    )


def _plan(stem: str, said: Mapping[str, Any]) -> Schema:
    """The plan of the documents of a JSON Schema, or of `{"name": ..., "model": <schema>}`."""
    schema = _mapping(said.get("model")) or said
    properties = _mapping(schema.get("properties"))
    if not properties:
        return Schema(stem, {stem: ()}, {"type": "object", "title": stem, "additionalProperties": True})
    name = str(said.get("name") or schema.get("title") or stem)
    fields = tuple(Field(key, "json", nullable=True, required=False) for key in properties)
    return Schema(name, {name: fields}, dict(schema))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _schemas(endpoint: Endpoint) -> dict[str, Any]:
    return _endpoint_schemas(_document(endpoint.input), _document(endpoint.output), endpoint.kind, endpoint.parameters)


def _endpoint_schemas(
    takes: dict[str, Any], gives: dict[str, Any], kind: EndpointKind, parameters: ParametersSchema | None
) -> dict[str, Any]:
    model = None if parameters is None else dict(parameters.json_schema)
    return {
        "input": takes,
        "output": gives,
        "is_generator": kind == "stream",
        "is_singleton_doc": kind != "batch",
        "parameters": {"name": None if parameters is None else parameters.name, "model": model},
    }


def _document(schema: Schema) -> dict[str, Any]:
    return _legacy() if schema.name == "LegacyDocument" else {"name": schema.name, "model": dict(schema.json_schema)}


@functools.cache
def _legacy() -> dict[str, Any]:
    """The schema of untyped documents, as Jina's gateways know it."""
    from jina_asgi.documents.schemas import legacy_schema_of_jina  # docarray is imported by the first request

    return {"name": "LegacyDocumentJina", "model": legacy_schema_of_jina()}
