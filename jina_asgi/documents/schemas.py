"""From a document class to its field plan.

The one module that knows docarray. It reads annotations, once, when an Executor class is made; requests are
served from the plan and from the small facts (`TensorType`, `Container`) collected here.
"""

from __future__ import annotations

import inspect
import re
import types
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, RootModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from jina_asgi.documents import doclist_subscript, pydantic_facts, tensors
from jina_asgi.documents.json_schema import object_schema
from jina_asgi.errors import DefinitionError
from jina_asgi.types import Field, FieldKind, ParametersSchema, Schema

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # docarray declares its classes in pydantic's first dialect
    from docarray import BaseDoc, DocList
    from docarray.base_doc import AnyDoc
    from docarray.typing import ID, AnyTensor
    from docarray.typing.abstract_type import AbstractType
    from docarray.typing.bytes.base_bytes import BaseBytes
    from docarray.typing.tensor.abstract_tensor import AbstractTensor

doclist_subscript.mend_now_or_on_import()

__all__ = [
    "AnyDoc",
    "BaseDoc",
    "Container",
    "DocList",
    "LegacyDocument",
    "TensorType",
    "is_document",
    "schema_of",
]

_SCALARS: Mapping[Any, FieldKind] = {str: "str", int: "int", float: "float", bool: "bool", bytes: "bytes"}
_CONTAINERS: Mapping[Any, FieldKind] = {
    **dict.fromkeys((list, Sequence, MutableSequence, deque), "list"),
    **dict.fromkeys((set, frozenset, AbstractSet, MutableSet), "set"),
    **dict.fromkeys((dict, Mapping, MutableMapping, OrderedDict, defaultdict), "dict"),
    tuple: "tuple",
}


with warnings.catch_warnings():
    warnings.simplefilter("ignore")

    class LegacyDocument(BaseDoc):
        """What an endpoint without annotations takes and gives: the fields of Jina's document before typed ones."""

        tensor: AnyTensor | None = None
        chunks: list[LegacyDocument] | None = None
        matches: list[LegacyDocument] | None = None
        blob: bytes | None = None
        text: str | None = None
        url: str | None = None
        embedding: AnyTensor | None = None
        tags: dict[str, Any] = {}
        scores: dict[str, Any] | None = None


def legacy_schema_of_jina() -> dict[str, Any]:
    """The JSON Schema of Jina's own class of such documents, to the letter: its gateways know them by that alone.

    As pydantic 2.9 writes it there.
    """
    from docarray.documents.legacy import LegacyDocument as Legacy  # with every document class of docarray's

    own, jinas = "LegacyDocument", "LegacyDocumentJina"
    properties = schema_of(LegacyDocument).json_schema["$defs"][own]["properties"]
    described = (inspect.getdoc(Legacy) or "").replace(f"the {own}.", f"the {jinas}.")
    legacy = {"title": jinas, "type": "object", "properties": _as_jina_schema(properties), "description": described}
    return {"$defs": {jinas: legacy}, "$ref": f"#/$defs/{jinas}"}


def _as_jina_schema(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _as_jina_schema(value) for key, value in schema.items() if key != "additionalProperties"}
    if isinstance(schema, list):
        return [_as_jina_schema(item) for item in schema]
    return "#/$defs/LegacyDocumentJina" if schema == "#/$defs/LegacyDocument" else schema


def is_document(annotation: Any) -> bool:
    """Whether an annotation is a document class: any pydantic model with fields, docarray's among them."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, RootModel)


@dataclass(frozen=True, slots=True)
class Container:
    """What a batch endpoint takes or gives: `DocList[T]` or `list[T]`."""

    model: type[BaseModel]
    make: Callable[[list[Any]], list[Any]]

    @classmethod
    def of(cls, annotation: Any) -> Container | None:
        """The container that an annotation names, or None when it names none."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if annotation is DocList:
            return cls.docs(LegacyDocument)
        if len(arguments) == 1 and is_document(arguments[0]):
            if origin in (list, Sequence):
                return cls(arguments[0], list)
            if isinstance(origin, type) and issubclass(origin, DocList):
                return cls.docs(arguments[0])
        if isinstance(annotation, type) and issubclass(annotation, DocList):
            return cls.docs(annotation.doc_type)
        return None

    @classmethod
    def wanted(cls, annotation: Any) -> tuple[bool, Container | None]:
        """What a `return_type` asks for: whether one document by itself, and the container; None where it is neither."""
        single = is_document(annotation)
        return single, cls.docs(annotation) if single else cls.of(annotation)

    @classmethod
    def docs(cls, model: type[BaseModel]) -> Container:
        """The container for `model`: docarray's `DocList` where it takes the class, else a plain list."""
        if not issubclass(model, BaseDoc):
            return cls(model, list)
        # The concrete class, once: `DocList[T](docs)` costs 8 µs a call, this 0.7.
        concrete: Any = get_origin(DocList[model])  # type: ignore[valid-type]  # a class at run time
        return cls(model, partial(concrete, validate_input_docs=False))


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a numpy array becomes a field's own tensor type.

    `convert` checks the declared shape; `view` is the numpy class that an array already of that shape is seen as.
    """

    convert: Callable[[Any], Any]
    view: type[np.ndarray] | None = None

    @classmethod
    def of(cls, annotation: Any) -> TensorType | None:
        tensor = _bare(annotation)
        if tensor is np.ndarray or get_origin(tensor) is np.ndarray:
            return cls(lambda array: array, np.ndarray)
        if not _is_tensor(tensor):
            return None
        declared = tensor.__docarray_target_shape__
        plain = tensor.__unparametrizedcls__ or tensor
        view = plain if issubclass(plain, np.ndarray) else None
        if declared is None:
            return cls(plain._docarray_validate, view)

        sizes = tuple(axis if isinstance(axis, int) else None for axis in declared) if ... not in declared else None

        def convert(value: Any) -> Any:
            if isinstance(value, np.ndarray):  # docarray would reshape too, and warn of it
                value = tensors.shaped(value, sizes)
            return tensor.__docarray_validate_shape__(plain._docarray_validate(value), declared)

        return cls(convert, view if sizes is not None and None not in sizes else None)


def schema_of(model: type[BaseModel]) -> Schema:
    """The field plan of a document class.

    Raises:
        DefinitionError: a field's type can cross no wire, or its annotation cannot be resolved.
    """
    documents: dict[str, tuple[Field, ...]] = {}
    models: dict[str, type[BaseModel]] = {}
    name = _add_document(model, documents, models)
    return Schema(name, documents, _json_schema(model, documents, name), models)


def parameters_schema(annotation: Any) -> ParametersSchema | None:
    """The schema of a typed `parameters` argument: a pydantic model, optional or not; None for a plain dict."""
    members = [m for m in (_members(annotation) or [annotation]) if m is not type(None)]
    models = [m for m in members if is_document(m)]
    if not models:
        return None
    validated: Any = models[0] if len(members) == 1 else annotation
    adapter: TypeAdapter[Any] = TypeAdapter(validated)
    required = any(field.is_required() for model in models for field in model.model_fields.values())
    return ParametersSchema(models[0].__name__, adapter.json_schema(by_alias=True), required, adapter)


def any_docs(values: list[dict[str, Any]]) -> list[Any]:
    """Documents of any fields, as docarray makes them where no class is given; an id that none was given is not set."""
    make: Callable[..., Any] = AnyDoc
    docs = [make(**value) for value in values]
    for doc, value in zip(docs, values, strict=True):
        object.__setattr__(doc, "__pydantic_fields_set__", set(value))
    return Container.docs(AnyDoc).make(docs)


def tensor_types(model: type[BaseModel]) -> dict[str, TensorType]:
    """The tensor fields of a document class, with how each is made."""
    found = {name: TensorType.of(info.annotation) for name, info in model.model_fields.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def doc_lists(model: type[BaseModel]) -> dict[str, Container]:
    """The fields of a document class that hold lists of documents in docarray's or a plain list."""
    found = {name: Container.of(_bare(info.annotation)) for name, info in model.model_fields.items()}
    return {name: container for name, container in found.items() if container is not None}


def string_types(model: type[BaseModel]) -> dict[str, type[str]]:
    """The `id` fields of a document class: strings of docarray's own class that need no check."""
    return {name: ID for name, info in model.model_fields.items() if _bare(info.annotation) is ID}


def bytes_types(model: type[BaseModel]) -> dict[str, type[bytes]]:
    """The fields of a document class that hold bytes of a class of docarray's."""
    bare = {name: _bare(info.annotation) for name, info in model.model_fields.items()}
    return {name: kind for name, kind in bare.items() if isinstance(kind, type) and issubclass(kind, BaseBytes)}


def needs_pydantic(model: type[BaseModel]) -> bool:
    """Whether a class has rules of its own that only pydantic can run: validators, constraints, aliases."""
    return issubclass(model, AnyDoc) or pydantic_facts.has_rules(model, lambda item: _dtype_of([item]) is not None)


def as_they_are(model: type[BaseModel]) -> dict[str, str]:
    """The fields that may hold bytes, tensors or documents and have no serializer of their own, with their JSON names.

    Where a class has serializers pydantic makes JSON of all other fields.
    """
    own = pydantic_facts.own_fields(model)
    return {
        name: info.serialization_alias or info.alias or name
        for name, info in model.model_fields.items()
        if name not in own
        and any(not added and _is_left(leaf) for leaf, added in pydantic_facts.leaves(info.annotation))
    }


def _is_left(leaf: Any) -> bool:
    if leaf is Any or pydantic_facts.is_torch_type(leaf):
        return True
    kinds = (bytes, np.ndarray, AbstractTensor, DocList, BaseModel)
    return isinstance(leaf, type) and any(issubclass(leaf, kind) for kind in kinds)


def _add_document(
    model: type[BaseModel], documents: dict[str, tuple[Field, ...]], models: dict[str, type[BaseModel]]
) -> str:
    for known, other in models.items():
        if other is model:
            return known
    name = re.sub(r"[^A-Za-z0-9._-]", "_", model.__name__)  # a generic's brackets are no name in OpenAPI
    while name in models:  # two classes of one name
        name += "_"
    models[name] = model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.model_rebuild()
    except (NameError, PydanticUserError) as error:
        raise DefinitionError(f"{model.__name__} has an annotation that cannot be resolved: {error}") from error
    documents[name] = ()  # reserve the place: a document may hold its own kind
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
    """The plan of one annotation; recursive over containers, unions and nested documents."""

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
        members = _members(annotation)
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
    if annotation is np.ndarray or origin is np.ndarray or _is_tensor(annotation):
        return made("tensor", dtype=_dtype_of(metadata), shape=_shape_of(annotation), tag=tag)
    if (container := Container.of(annotation)) is not None and container.make is not list:
        return made("docs", doc=_add_document(container.model, documents, models))
    if is_document(annotation):
        return made("doc", doc=_add_document(annotation, documents, models))
    if isinstance(annotation, type) and issubclass(annotation, BaseBytes):
        return made("bytes", tag=tag)
    if isinstance(annotation, type) and issubclass(annotation, str) and issubclass(annotation, AbstractType):
        return made("str", tag=tag)
    if (kind := _CONTAINERS.get(origin or annotation)) is not None:
        arguments = get_args(annotation)
        if kind == "tuple" and ... in arguments:
            kind, arguments = "list", arguments[:1]
        return made(kind, items=tuple(inner(a) for a in (arguments[-1:] if kind == "dict" else arguments)))
    return made(
        "json", secret=pydantic_facts.is_secret(annotation), file=pydantic_facts.is_file_path(annotation, metadata)
    )


def _bare(annotation: Any) -> Any:
    """An annotation without Annotated and without its None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    members = [m for m in _members(annotation) or [] if m is not type(None)]
    return _bare(members[0]) if len(members) == 1 else annotation


def _members(annotation: Any) -> list[Any] | None:
    """The members of a union, or None for anything else."""
    if get_origin(annotation) in (Union, types.UnionType):
        return list(get_args(annotation))
    return None


def _is_tensor(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractTensor)


def _dtype_of(metadata: Iterable[Any]) -> str | None:
    """The dtype that `Annotated[NdArray, np.float32]` declares."""
    for item in metadata:
        if isinstance(item, np.dtype):
            return item.str
        if isinstance(item, type) and issubclass(item, np.generic):
            return np.dtype(item).str
    return None


def _shape_of(annotation: Any) -> tuple[int | None, ...] | None:
    shape = getattr(annotation, "__docarray_target_shape__", None)
    if shape is None or Ellipsis in shape:
        return None
    return tuple(axis if isinstance(axis, int) else None for axis in shape)


def _json_schema(model: type[BaseModel], documents: Mapping[str, tuple[Field, ...]], name: str) -> Mapping[str, Any]:
    """The class's JSON Schema; from the plan where docarray cannot say it (a tensor of symbolic shape)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _repeatable(model.model_json_schema(by_alias=True))  # type: ignore[no-any-return]  # a dict, as it was
        except (PydanticInvalidForJsonSchema, TypeError):
            definitions = {key: object_schema(key, fields) for key, fields in documents.items()}
            return {**definitions[name], "$defs": definitions}


def _repeatable(schema: Any) -> Any:
    """A schema without the example of an id that docarray draws anew in every process."""
    if isinstance(schema, dict):
        drawn = schema.get("example") == _DRAWN
        return {key: _repeatable(value) for key, value in schema.items() if not (drawn and key == "example")}
    return [_repeatable(item) for item in schema] if isinstance(schema, list) else schema


_DRAWN = (BaseDoc.model_fields["id"].json_schema_extra or {}).get("example", "")  # type: ignore[union-attr]  # a dict
