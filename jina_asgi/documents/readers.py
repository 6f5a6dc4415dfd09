"""Builds the readers of documents from plain values (as JSON or msgpack holds them), once for each field plan.

If the class allows it, a reader makes documents of exact types without pydantic (`fast_readers`); pydantic converts
other values, and reports errors. Without the class, documents are dicts, and the process with the class checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from jina_asgi.documents import field_plans, pydantic_facts, untyped_reader, yielding_validator
from jina_asgi.documents.conversions import (
    Read,
    array,
    dict_of,
    fields_given,
    integer,
    integers,
    list_maker,
    list_of,
    of_class,
    or_none,
    to_bytes,
    tuple_of,
    unless_document,
)
from jina_asgi.documents.fast_readers import EXACT, FieldSetter, ReadColumns, column_reader, default_of, row_reader
from jina_asgi.documents.mismatch import Mismatch, errors_of
from jina_asgi.documents.pydantic_reader import PydanticReader
from jina_asgi.types import Field, Schema

__all__ = ["MAX_DEPTH", "Mismatch", "Readers", "check_depth", "errors_of", "to_bytes"]

MAX_DEPTH = 64
_FAST_KINDS = ("int", "float", "bool", "bytes", "tensor")
#: The union members for which a JSON value is converted before pydantic chooses.
_MEMBERS: Mapping[type, tuple[str, ...]] = {
    dict: ("doc", "dict", "tensor"),
    list: ("docs", "list", "tuple", "set", "tensor"),
    str: ("bytes",),
}


class Readers:
    """The readers of one schema's documents, by name, as a document may contain its own class.

    A reader raises ValidationError or Mismatch. `yielding`: other threads can run while it reads (`yielding_validator`).
    """

    def __init__(self, schema: Schema, *, yielding: bool = False) -> None:
        self.schema, self._yielding = schema, yielding
        self._made: dict[str, Read] = {}
        self._with_binary = field_plans.documents_with(schema, field_plans.is_binary)
        #: Documents that are read here at every level, as pydantic alone could not read their values.
        self.own = self._with_binary | field_plans.holding(schema, _unfit_documents(schema))
        self._plan = untyped_reader.readers(schema)

    def of(self, name: str) -> Read:
        """The reader of one document of the class `name`."""
        if name not in self._made:
            model = self.schema.models.get(name)
            if model is None:
                return self._plan.of(name)
            self._made[name] = lambda value: self._made[name](value)  # a recursive class finds itself
            self._made[name] = self._typed(name, model)
        return self._made[name]

    def of_columns(self, name: str) -> ReadColumns:
        """The reader of documents from columns; it returns None for values that `of(name)` must read."""
        model = self.schema.models.get(name)
        if model is None or not self._is_fast(name, set()):
            return lambda *_: None
        return column_reader(model, self._steps(name, model))

    def _typed(self, name: str, model: type[BaseModel]) -> Read:
        slow = self._by_pydantic(name, model)
        return row_reader(model, self._steps(name, model), slow) if self._is_fast(name, set()) else slow

    def _by_pydantic(self, name: str, model: type[BaseModel]) -> PydanticReader:
        """A reader that makes bytes and tensors by the plan, and leaves the rest to pydantic."""
        converters: dict[str, Read] = {}
        for field in self.schema.documents[name]:
            if (convert := self._converter(field)) is not None:
                converters |= dict.fromkeys(pydantic_facts.accepted_names(model, field.name), convert)
        validator = yielding_validator.validator(model) if self._yielding else model.__pydantic_validator__
        from_json = pydantic_facts.is_strict(model) and name not in self._with_binary
        return PydanticReader(model, converters, validator, from_json=from_json)

    def _is_fast(self, name: str, seen: set[str]) -> bool:
        """Whether documents of this name, and nested ones, need no pydantic."""
        from jina_asgi.documents import document_types  # docarray, only where there are classes

        if name in seen:
            return True
        seen.add(name)
        if document_types.needs_pydantic(self.schema.models[name]):
            return False
        return all(
            field.kind in _FAST_KINDS
            or (field.kind == "str" and field.tag in (None, "id"))
            or (field.kind in ("doc", "docs") and field.doc is not None and self._is_fast(field.doc, seen))
            for field in self.schema.documents[name]
        )

    def _steps(self, name: str, model: type[BaseModel]) -> list[FieldSetter]:
        from jina_asgi.documents import document_types  # docarray, only where there are classes

        tensor_types, lists = document_types.tensor_types(model), document_types.doc_lists(model)
        strings, blobs = document_types.string_types(model), document_types.bytes_types(model)
        steps, unfit = [], pydantic_facts.unfit_defaults(model)
        for field in self.schema.documents[name]:
            default = default_of(model, field.name)
            nullable = field.nullable or (field.name in unfit and unfit[field.name][1] is None)
            if field.kind == "tensor":
                steps.append(FieldSetter.tensor(field, tensor_types[field.name], default, nullable=nullable))
                continue
            exact: type | None = EXACT.get(field.kind)
            make: Read | None = strings.get(field.name)
            other: Read | None = None
            if field.kind == "bytes":
                blob = blobs.get(field.name)
                exact, make = bytes, blob
                other = to_bytes if blob is None else of_class(blob)
            elif field.kind == "doc" and field.doc is not None:
                exact = dict
                make = other = self.of(field.doc)
            elif field.kind == "docs" and field.doc is not None:
                exact = list
                make = other = list_maker(self.of(field.doc), lists[field.name].make)
            steps.append(FieldSetter(field.name, exact, make, other, nullable, default))
        return steps

    def _converter(self, field: Field) -> Read | None:
        """Builds the converter that prepares a field's value for pydantic; None: no conversion."""
        if field.kind == "int":
            return integer
        if field.kind in ("list", "set", "dict") and field.items and field.items[-1].kind == "int":
            return integers
        return self._binary(field)

    def _binary(self, field: Field) -> Read | None:
        """Builds the converter of base64 to bytes and lists to arrays anywhere in a field; None: no conversion."""
        make = self._binary_value(field)
        return make if make is None else or_none(field, make)

    def _binary_value(self, field: Field) -> Read | None:
        if field.kind == "bytes":
            return to_bytes
        if field.kind == "tensor":
            return lambda value: value if pydantic_facts.is_torch(value) else array(value, field)
        if field.kind in ("doc", "docs") and field.doc is not None:
            if field.doc not in self.own:
                return None
            read = unless_document(self.of(field.doc))
            return list_of(read) if field.kind == "docs" else read
        inner = [self._binary(item) for item in field.items]
        if not any(inner):
            return None
        if field.kind == "union":
            return self._union(field, inner)
        if field.kind == "tuple":
            return tuple_of(inner)
        first = inner[-1] if field.kind == "dict" else inner[0]
        assert first is not None
        return dict_of(first) if field.kind == "dict" else list_of(first)

    def _union(self, field: Field, inner: list[Read | None]) -> Read:
        """Builds the converter of a JSON value for the union members that hold bytes or tensors; pydantic decides at last.

        Text stays text if a member is a `str`. Among documents, the one with the most fields set is chosen.
        """
        members: list[tuple[str, Read]] = []
        for item, read in zip(field.items, inner, strict=True):
            made = unless_document(self.of(item.doc)) if item.kind == "doc" and item.doc is not None else read
            if made is not None:
                members.append((item.kind, made))
        has_text = any(item.kind in ("str", "json") for item in field.items)

        def convert(value: Any) -> Any:
            kinds = () if has_text and type(value) is str else _MEMBERS.get(type(value), ())
            made = []
            for kind, read in members:
                if kind in kinds:
                    try:
                        made.append(read(value))
                    except (ValueError, TypeError):
                        continue
            return max(made, key=fields_given) if made else value

        return convert


def _unfit_documents(schema: Schema) -> set[str]:
    """The documents whose classes have defaults that they would refuse themselves."""
    return {name for name, model in schema.models.items() if pydantic_facts.unfit_defaults(model)}


def check_depth(value: Any, limit: int = MAX_DEPTH) -> Any:
    """Returns `value` if it nests no deeper than `limit`.

    Raises:
        Mismatch: it nests deeper.
    """
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise Mismatch(f"nested deeper than {limit}", "too_deep")
