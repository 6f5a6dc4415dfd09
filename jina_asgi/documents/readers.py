"""Builds the readers of documents from plain values (as JSON or msgpack holds them), once for each field plan.

If the class allows it, a reader makes documents of exact types without pydantic (`fast_readers`); pydantic converts
other values, and reports errors. Without the class, documents are dicts, and the process with the class checks them.

Reads documents without their class, as dicts, for the process that has the class.

Nothing is refused here, as only the class knows what it accepts. Bytes and tensors in JSON are decoded if possible; in
answers secrets are hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from jina_asgi.documents import field_plans, pydantic_facts
from jina_asgi.documents.conversions import (
    Mismatch,
    Read,
    array,
    dict_of,
    errors_of,
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
from jina_asgi.documents.pydantic_reader import PydanticReader, yielding_validator
from jina_asgi.types import Field, Schema

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
        self._plan = untyped_readers(schema)

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
        validator = yielding_validator(model) if self._yielding else model.__pydantic_validator__
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


#: Replaces a secret, as in pydantic.
STARS = "*" * 10


class PlanReaders:
    """The readers of a schema's documents, by name, as a document may contain its own class.

    Args:
        schema: the schema.
        leaf: returns the reader of a field; None for fields that are kept, except for their nested values.
    """

    def __init__(self, schema: Schema, leaf: Callable[[Field], Read | None]) -> None:
        self._schema, self._leaf = schema, leaf
        self._changed = field_plans.documents_with(schema, lambda field: leaf(field) is not None)
        self._made: dict[str, Read] = {}

    def of(self, name: str) -> Read:
        """The reader of one document of the class `name`."""
        if name not in self._changed:
            return _as_it_is
        if name not in self._made:
            self._made[name] = lambda value: self._made[name](value)  # a recursive class finds itself
            self._made[name] = self._document(name)
        return self._made[name]

    def _document(self, name: str) -> Read:
        found = {field.name: self._value(field) for field in self._schema.documents[name]}
        reads = {key: read for key, read in found.items() if read is not _as_it_is}

        def read(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {**value, **{key: convert(value[key]) for key, convert in reads.items() if key in value}}

        return read

    def _value(self, field: Field) -> Read:
        if (leaf := self._leaf(field)) is not None:
            return leaf
        if field.kind in ("doc", "docs") and field.doc is not None:
            read = self.of(field.doc)
            return read if field.kind == "doc" or read is _as_it_is else _each(read)
        if field.kind in ("list", "set", "dict") and field.items:
            read = self._value(field.items[-1])
            return read if read is _as_it_is else _each(read)
        if field.kind == "tuple":
            reads = [self._value(item) for item in field.items]
            return _as_it_is if all(read is _as_it_is for read in reads) else _in_turn(reads)
        return _as_it_is


def untyped_readers(schema: Schema) -> PlanReaders:
    """The readers of documents from JSON or msgpack."""
    return PlanReaders(schema, _binary)


def secret_hider(schema: Schema) -> Read | None:
    """Builds a function that hides a document's secrets; None if it has none."""
    found = PlanReaders(schema, _secret_mask).of(schema.name)
    return None if found is _as_it_is else found


def _binary(field: Field) -> Read | None:
    if field.kind == "bytes":
        return _or_unchanged(to_bytes, str)
    return _or_unchanged(lambda value: array(value, field), object) if field.kind == "tensor" else None


def _secret_mask(field: Field) -> Read | None:
    if field.secret or any(item.secret for item in field.items if field.kind == "union"):
        return lambda value: STARS if value is not None and value != "" else value
    return None


def _as_it_is(value: Any) -> Any:
    return value


def _or_unchanged(read: Read, kind: type) -> Read:
    def convert(value: Any) -> Any:
        if value is None or not isinstance(value, kind):
            return value
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError):
            return value  # the class reports the error

    return convert


def _each(read: Read) -> Read:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: read(item) for key, item in value.items()}
        return [read(item) for item in value] if isinstance(value, list) else value

    return convert


def _in_turn(reads: list[Callable[[Any], Any]]) -> Read:
    def convert(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(reads):
            return value
        return [read(item) for read, item in zip(reads, value, strict=True)]

    return convert


__all__ = ["MAX_DEPTH", "Mismatch", "Readers", "check_depth", "errors_of", "to_bytes"]
