"""Reads the types in a document class's annotations: documents, lists of documents, tensors, ids, bytes.

The one module that imports docarray. It reads annotations once, when an Executor class is defined; requests use the
results (`Container`, `TensorType`) and the field plan (`schemas`).
"""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, RootModel

from jina_asgi.documents import doclist_subscript, pydantic_facts, tensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # docarray declares its classes in the style of pydantic 1
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
]

#: The example of an id in the JSON Schema of a document, which docarray draws at random in every process.
DRAWN_ID = (BaseDoc.model_fields["id"].json_schema_extra or {}).get("example", "")  # type: ignore[union-attr]  # a dict


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


def is_document(annotation: Any) -> bool:
    """Whether an annotation is a document class: any pydantic model with fields, also docarray's."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, RootModel)


@dataclass(frozen=True, slots=True)
class Container:
    """The list type of a batch endpoint's input or output: `DocList[T]` or `list[T]`."""

    model: type[BaseModel]
    make: Callable[[list[Any]], list[Any]]

    @classmethod
    def of(cls, annotation: Any) -> Container | None:
        """The container of an annotation; None if it is not a list of documents."""
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
        """Reads a `return_type`: whether it is a single document, and the container; None if it is neither."""
        single = is_document(annotation)
        return single, cls.docs(annotation) if single else cls.of(annotation)

    @classmethod
    def docs(cls, model: type[BaseModel]) -> Container:
        """The container for `model`: docarray's `DocList` if it accepts the class, else a plain list."""
        if not issubclass(model, BaseDoc):
            return cls(model, list)
        # The concrete class, once: `DocList[T](docs)` costs 8 µs a call, this 0.7.
        concrete: Any = get_origin(DocList[model])  # type: ignore[valid-type]  # a class at run time
        return cls(model, partial(concrete, validate_input_docs=False))


@dataclass(frozen=True, slots=True)
class TensorType:
    """Converts a numpy array to a field's tensor type.

    `convert` checks the declared shape; `view` is the numpy class for arrays that have this shape already.
    """

    convert: Callable[[Any], Any]
    view: type[np.ndarray] | None = None

    @classmethod
    def of(cls, annotation: Any) -> TensorType | None:
        tensor = _bare(annotation)
        if tensor is np.ndarray or get_origin(tensor) is np.ndarray:
            return cls(lambda array: array, np.ndarray)
        if not is_tensor(tensor):
            return None
        declared = tensor.__docarray_target_shape__
        plain = tensor.__unparametrizedcls__ or tensor
        view = plain if issubclass(plain, np.ndarray) else None
        if declared is None:
            return cls(plain._docarray_validate, view)

        sizes = tuple(axis if isinstance(axis, int) else None for axis in declared) if ... not in declared else None

        def convert(value: Any) -> Any:
            if isinstance(value, np.ndarray):  # docarray would reshape too, with a warning
                value = tensors.shaped(value, sizes)
            return tensor.__docarray_validate_shape__(plain._docarray_validate(value), declared)

        return cls(convert, view if sizes is not None and None not in sizes else None)


def any_docs(values: list[dict[str, Any]]) -> list[Any]:
    """Makes documents of any fields, as docarray does without a class; a missing id does not count as set."""
    make: Callable[..., Any] = AnyDoc
    docs = [make(**value) for value in values]
    for doc, value in zip(docs, values, strict=True):
        object.__setattr__(doc, "__pydantic_fields_set__", set(value))
    return Container.docs(AnyDoc).make(docs)


def tensor_types(model: type[BaseModel]) -> dict[str, TensorType]:
    """The tensor fields of a document class, and their types."""
    found = {name: TensorType.of(info.annotation) for name, info in model.model_fields.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def doc_lists(model: type[BaseModel]) -> dict[str, Container]:
    """The fields of a document class that hold lists of documents, docarray's or plain ones."""
    found = {name: Container.of(_bare(info.annotation)) for name, info in model.model_fields.items()}
    return {name: container for name, container in found.items() if container is not None}


def string_types(model: type[BaseModel]) -> dict[str, type[str]]:
    """The `id` fields of a document class: docarray's string class, which needs no check."""
    return {name: ID for name, info in model.model_fields.items() if _bare(info.annotation) is ID}


def bytes_types(model: type[BaseModel]) -> dict[str, type[bytes]]:
    """The fields of a document class that hold a bytes class of docarray's."""
    bare = {name: _bare(info.annotation) for name, info in model.model_fields.items()}
    return {name: kind for name, kind in bare.items() if is_bytes(kind)}


def needs_pydantic(model: type[BaseModel]) -> bool:
    """Whether a class has rules of its own that only pydantic can run: validators, constraints, aliases."""
    return issubclass(model, AnyDoc) or pydantic_facts.has_rules(model, lambda item: dtype_of([item]) is not None)


def as_they_are(model: type[BaseModel]) -> dict[str, str]:
    """The fields that may hold bytes, tensors or documents and have no serializer, with their JSON names.

    In a class with serializers pydantic writes all other fields.
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


def _bare(annotation: Any) -> Any:
    """An annotation without Annotated and without its None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    members = [m for m in members_of(annotation) or [] if m is not type(None)]
    return _bare(members[0]) if len(members) == 1 else annotation


def members_of(annotation: Any) -> list[Any] | None:
    """The members of a union, or None for anything else."""
    if get_origin(annotation) in (Union, types.UnionType):
        return list(get_args(annotation))
    return None


def is_tensor(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractTensor)


def dtype_of(metadata: Iterable[Any]) -> str | None:
    """The dtype that `Annotated[NdArray, np.float32]` declares."""
    for item in metadata:
        if isinstance(item, np.dtype):
            return item.str
        if isinstance(item, type) and issubclass(item, np.generic):
            return np.dtype(item).str
    return None


def is_string(annotation: Any) -> bool:
    """Whether an annotation is a string class of docarray's, such as an id or a URL."""
    return isinstance(annotation, type) and issubclass(annotation, str) and issubclass(annotation, AbstractType)


def is_bytes(annotation: Any) -> bool:
    """Whether an annotation is a bytes class of docarray's."""
    return isinstance(annotation, type) and issubclass(annotation, BaseBytes)


def legacy_docstring() -> str:
    """The docstring of docarray's own `LegacyDocument`."""
    from docarray.documents.legacy import LegacyDocument as Legacy  # imports every document class of docarray

    return inspect.getdoc(Legacy) or ""
