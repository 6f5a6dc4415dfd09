"""Makes the field plan and the JSON Schema of a document class, once, when an Executor class is made."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from jina_asgi.documents import pydantic_facts
from jina_asgi.documents.document_types import (
    DRAWN_ID,
    Container,
    LegacyDocument,
    dtype_of,
    is_bytes,
    is_document,
    is_string,
    is_tensor,
    legacy_docstring,
    members_of,
)
from jina_asgi.errors import DefinitionError
from jina_asgi.types import Field, FieldKind, ParametersSchema, Schema

_SCALARS: Mapping[Any, FieldKind] = {str: "str", int: "int", float: "float", bool: "bool", bytes: "bytes"}
_CONTAINERS: Mapping[Any, FieldKind] = {
    **dict.fromkeys((list, Sequence, MutableSequence, deque), "list"),
    **dict.fromkeys((set, frozenset, AbstractSet, MutableSet), "set"),
    **dict.fromkeys((dict, Mapping, MutableMapping, OrderedDict, defaultdict), "dict"),
    tuple: "tuple",
}


def schema_of(model: type[BaseModel]) -> Schema:
    """Makes the field plan of a document class.

    Raises:
        DefinitionError: a field's type cannot be encoded, or its annotation cannot be resolved.
    """
    documents: dict[str, tuple[Field, ...]] = {}
    models: dict[str, type[BaseModel]] = {}
    name = _add_document(model, documents, models)
    return Schema(name, documents, _json_schema(model, documents, name), models)


def parameters_schema(annotation: Any) -> ParametersSchema | None:
    """Makes the schema of a typed `parameters` argument: a pydantic model, optional or not; None for a plain dict."""
    members = [m for m in (members_of(annotation) or [annotation]) if m is not type(None)]
    models = [m for m in members if is_document(m)]
    if not models:
        return None
    validated: Any = models[0] if len(members) == 1 else annotation
    adapter: TypeAdapter[Any] = TypeAdapter(validated)
    required = any(field.is_required() for model in models for field in model.model_fields.values())
    return ParametersSchema(models[0].__name__, adapter.json_schema(by_alias=True), required, adapter)


def legacy_schema_of_jina() -> dict[str, Any]:
    """The JSON Schema of Jina's own legacy document, to the letter, by which its gateways recognise it.

    It is the schema that pydantic 2.9 writes in Jina.
    """
    own, jinas = "LegacyDocument", "LegacyDocumentJina"
    properties = schema_of(LegacyDocument).json_schema["$defs"][own]["properties"]
    described = legacy_docstring().replace(f"the {own}.", f"the {jinas}.")
    legacy = {"title": jinas, "type": "object", "properties": _as_jina_schema(properties), "description": described}
    return {"$defs": {jinas: legacy}, "$ref": f"#/$defs/{jinas}"}


def _as_jina_schema(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _as_jina_schema(value) for key, value in schema.items() if key != "additionalProperties"}
    if isinstance(schema, list):
        return [_as_jina_schema(item) for item in schema]
    return "#/$defs/LegacyDocumentJina" if schema == "#/$defs/LegacyDocument" else schema


def _add_document(
    model: type[BaseModel], documents: dict[str, tuple[Field, ...]], models: dict[str, type[BaseModel]]
) -> str:
    for known, other in models.items():
        if other is model:
            return known
    name = re.sub(r"[^A-Za-z0-9._-]", "_", model.__name__)  # OpenAPI allows no brackets of a generic class
    while name in models:  # two classes have the same name
        name += "_"
    models[name] = model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.model_rebuild()
    except (NameError, PydanticUserError) as error:
        raise DefinitionError(f"{model.__name__} has an annotation that cannot be resolved: {error}") from error
    documents[name] = ()  # reserve the name: a document may contain its own class
    documents[name] = tuple(
        _field(
            pydantic_facts.wire_name(model, field_name),
            info.annotation,
            info.metadata,
            documents,
            models,
            required=info.is_required(),
        )
        for field_name, info in model.model_fields.items()
    )
    return name


def _field(
    name: str,
    annotation: Any,
    metadata: Iterable[Any],
    documents: dict[str, tuple[Field, ...]],
    models: dict[str, type[BaseModel]],
    *,
    required: bool = True,
) -> Field:
    """Makes the plan of one annotation, recursively over containers, unions and nested documents."""

    def inner(item: Any) -> Field:
        return _field("", item, (), documents, models)

    def made(kind: FieldKind, **facts: Any) -> Field:
        return Field(name, kind, nullable, required, **facts)

    nullable = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = [*metadata, *more]
            continue
        members = members_of(annotation)
        if members is None:
            break
        nullable = nullable or type(None) in members
        members = [m for m in members if m is not type(None)]
        if len(members) != 1:
            return made("union", items=tuple(inner(m) for m in members))
        annotation = members[0]
    tag = getattr(annotation, "_proto_type_name", None)
    origin = get_origin(annotation)
    if annotation in _SCALARS and not pydantic_facts.is_encoded(metadata):
        return made(_SCALARS[annotation])
    if annotation is np.ndarray or origin is np.ndarray or is_tensor(annotation):
        return made("tensor", dtype=dtype_of(metadata), shape=_shape_of(annotation), tag=tag)
    if (container := Container.of(annotation)) is not None and container.make is not list:
        return made("docs", doc=_add_document(container.model, documents, models))
    if is_document(annotation):
        return made("doc", doc=_add_document(annotation, documents, models))
    if is_bytes(annotation):
        return made("bytes", tag=tag)
    if is_string(annotation):
        return made("str", tag=tag)
    if (kind := _CONTAINERS.get(origin or annotation)) is not None:
        arguments = get_args(annotation)
        if kind == "tuple" and ... in arguments:
            kind, arguments = "list", arguments[:1]
        return made(kind, items=tuple(inner(a) for a in (arguments[-1:] if kind == "dict" else arguments)))
    return made(
        "json", secret=pydantic_facts.is_secret(annotation), file=pydantic_facts.is_file_path(annotation, metadata)
    )


def _shape_of(annotation: Any) -> tuple[int | None, ...] | None:
    shape = getattr(annotation, "__docarray_target_shape__", None)
    if shape is None or Ellipsis in shape:
        return None
    return tuple(axis if isinstance(axis, int) else None for axis in shape)


def _json_schema(model: type[BaseModel], documents: Mapping[str, tuple[Field, ...]], name: str) -> Mapping[str, Any]:
    """The class's JSON Schema; made from the plan if docarray cannot write it (a tensor of symbolic shape)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _repeatable(model.model_json_schema(by_alias=True))  # type: ignore[no-any-return]  # a dict, as it was
        except (PydanticInvalidForJsonSchema, TypeError):
            definitions = {key: _object_schema(key, fields) for key, fields in documents.items()}
            return {**definitions[name], "$defs": definitions}


def _repeatable(schema: Any) -> Any:
    """Removes the example of an id, which docarray draws at random in every process."""
    if isinstance(schema, dict):
        drawn = schema.get("example") == DRAWN_ID
        return {key: _repeatable(value) for key, value in schema.items() if not (drawn and key == "example")}
    return [_repeatable(item) for item in schema] if isinstance(schema, list) else schema


def _object_schema(title: str, fields: tuple[Field, ...]) -> dict[str, Any]:
    """The JSON Schema of a document with these fields; nested documents are under `$defs`."""
    properties = {field.name: _value_schema(field) for field in fields}
    required = [field.name for field in fields if field.required]
    return {"type": "object", "title": title, "properties": properties, "required": required}


_PLAIN_SCHEMAS: Mapping[str, dict[str, Any]] = {
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
        value = dict(_PLAIN_SCHEMAS[field.kind])
        if field.items and field.kind in ("list", "set"):
            value["items"] = _value_schema(field.items[0])
        elif field.items and field.kind == "dict":
            value["additionalProperties"] = _value_schema(field.items[-1])
    return {"anyOf": [value, {"type": "null"}]} if field.nullable else value
