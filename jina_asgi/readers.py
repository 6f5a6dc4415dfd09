"""From plain values (what JSON or msgpack hold) to one document: the checks of a field plan, compiled once.

A reader takes the fast way (`direct`), exact types and no pydantic, where the class allows it; anything
unexpected is left to pydantic, which converts what it may and names what is wrong. Without a class the plan
alone checks, and documents are dicts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel

from jina_asgi import patient, plans, tensors, traits
from jina_asgi.direct import EXACT, Read, ReadColumns, Step, column_reader, default_of, row_reader
from jina_asgi.mismatch import Mismatch, errors_of
from jina_asgi.types import Field, Schema

__all__ = ["MAX_DEPTH", "Mismatch", "Readers", "check_depth", "errors_of", "to_bytes"]

MAX_DEPTH = 64
_MISSING = object()
_FAST_KINDS = ("int", "float", "bool", "bytes", "tensor")
#: Which members of a union a JSON value may be for, where it is not for pydantic to say.
_MEMBERS: Mapping[type, tuple[str, ...]] = {
    dict: ("doc", "dict", "tensor"),
    list: ("docs", "list", "tuple", "set", "tensor"),
    str: ("bytes",),
}


class Readers:
    """The readers of one schema's documents; a document may hold its own kind, so they are found by name.

    A reader raises ValidationError or Mismatch.

    Args:
        patient: documents are large, and are read beside an event loop (`patient`).
    """

    def __init__(self, schema: Schema, *, patient: bool = False) -> None:
        self.schema, self._patient = schema, patient
        self._made: dict[str, Read] = {}
        self._with_binary = plans.documents_with(schema, plans.is_binary)

    def of(self, name: str) -> Read:
        """What reads one document of the class `name`."""
        if name not in self._made:
            self._made[name] = lambda value: self._made[name](value)  # a recursive class finds itself
            model = self.schema.models.get(name)
            self._made[name] = self._untyped(name) if model is None else self._typed(name, model)
        return self._made[name]

    def of_columns(self, name: str) -> ReadColumns:
        """What reads documents given field by field; it answers None for what `of(name)` has to read."""
        model = self.schema.models.get(name)
        if model is None or not self._is_fast(name, set()):
            return lambda *_: None
        return column_reader(model, self._steps(name, model))

    def _untyped(self, name: str) -> Read:
        fields = [(f, self._checked(f)) for f in self.schema.documents[name]]
        known = {field.name for field, _ in fields}
        extra = plans.keeps_extra(self.schema, name)

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise Mismatch(f"expected an object with the fields of {name}, got {type(value).__name__}")
            made = {}
            for field, convert in fields:
                item = value.get(field.name, _MISSING)
                if item is _MISSING:
                    if field.required:
                        raise Mismatch.within(Mismatch("Field required", "missing"), field.name)
                else:
                    made[field.name] = _at(field.name, convert, item)
            if extra is not None and (unknown := [key for key in value if key not in known]):
                if extra is False:
                    raise Mismatch.within(Mismatch("Extra inputs are not permitted", "extra_forbidden"), unknown[0])
                made |= {key: value[key] for key in unknown}
            return made

        return read

    def _typed(self, name: str, model: type[BaseModel]) -> Read:
        slow = self._by_pydantic(name, model)
        return row_reader(model, self._steps(name, model), slow) if self._is_fast(name, set()) else slow

    def _by_pydantic(self, name: str, model: type[BaseModel]) -> Read:
        """Bytes and tensors are made here, from the plan; all else is pydantic's."""
        converters: dict[str, Read] = {}
        for field in self.schema.documents[name]:
            if (convert := self._binary(field)) is not None:
                converters |= dict.fromkeys(traits.accepted_names(model, field.name), convert)
        validator = patient.validator(model) if self._patient else model.__pydantic_validator__
        # A strict class takes a datetime's text in JSON alone.
        from_json = traits.is_strict(model) and name not in self._with_binary

        def read(value: Any) -> Any:
            if type(value) is dict:
                if from_json:
                    try:
                        return validator.validate_json(orjson.dumps(value), by_alias=True, by_name=True)
                    except orjson.JSONEncodeError:
                        pass
                changed = {key: _at(key, converters[key], value[key]) for key in converters if key in value}
                value = {**value, **changed} if changed else value
            return validator.validate_python(value, by_alias=True, by_name=True)

        return read

    def _is_fast(self, name: str, seen: set[str]) -> bool:
        """Whether documents of this name, and those within, need no pydantic."""
        from jina_asgi import schemas  # docarray, only where there are classes

        if name in seen:
            return True
        seen.add(name)
        if schemas.needs_pydantic(self.schema.models[name]):
            return False
        return all(
            field.kind in _FAST_KINDS
            or (field.kind == "str" and field.tag in (None, "id"))
            or (field.kind in ("doc", "docs") and field.doc is not None and self._is_fast(field.doc, seen))
            for field in self.schema.documents[name]
        )

    def _steps(self, name: str, model: type[BaseModel]) -> list[Step]:
        from jina_asgi import schemas  # docarray, only where there are classes

        tensor_types, lists = schemas.tensor_types(model), schemas.doc_lists(model)
        strings, blobs = schemas.string_types(model), schemas.bytes_types(model)
        steps = []
        for field in self.schema.documents[name]:
            default = default_of(model, field.name)
            if field.kind == "tensor":
                steps.append(Step.tensor(field, tensor_types[field.name], default))
                continue
            exact: type | None = EXACT.get(field.kind)
            make: Read | None = strings.get(field.name)
            other: Read | None = None
            if field.kind == "bytes":
                blob = blobs.get(field.name)
                exact, make = bytes, blob
                other = to_bytes if blob is None else _of_class(blob)
            elif field.kind == "doc" and field.doc is not None:
                exact = dict
                make = other = self.of(field.doc)
            elif field.kind == "docs" and field.doc is not None:
                exact = list
                make = other = _list_maker(self.of(field.doc), lists[field.name].make)
            steps.append(Step(field.name, exact, make, other, field.nullable, default))
        return steps

    def _binary(self, field: Field) -> Read | None:
        """What turns base64 into bytes and lists into arrays anywhere within a field; None: nothing to do."""
        make = self._binary_value(field)
        return make if make is None else _or_none(field, make)

    def _binary_value(self, field: Field) -> Read | None:
        if field.kind == "bytes":
            return to_bytes
        if field.kind == "tensor":
            return lambda value: value if traits.is_torch(value) else _array(value, field)
        if field.kind in ("doc", "docs") and field.doc is not None:
            if field.doc not in self._with_binary:
                return None
            read = _unless_made(self.of(field.doc))
            return _list_of(read) if field.kind == "docs" else read
        inner = [self._binary(item) for item in field.items]
        if not any(inner):
            return None
        if field.kind == "union":
            return self._union(field, inner)
        if field.kind == "tuple":
            return _tuple_of(inner)
        first = inner[-1] if field.kind == "dict" else inner[0]
        assert first is not None
        return _dict_of(first) if field.kind == "dict" else _list_of(first)

    def _union(self, field: Field, inner: list[Read | None]) -> Read:
        """Reads a JSON value as those members of a union that hold bytes or tensors; pydantic has the last word.

        Text stays text where a member is a `str`. Among documents the one with the most fields given is taken.
        """
        members: list[tuple[str, Read]] = []
        for item, read in zip(field.items, inner, strict=True):
            made = _unless_made(self.of(item.doc)) if item.kind == "doc" and item.doc is not None else read
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
            return max(made, key=_fields_given) if made else value

        return convert

    def _checked(self, field: Field) -> Read:
        """What checks and makes a field's value where no class is at hand."""
        return _or_none(field, self._checked_value(field))

    def _checked_value(self, field: Field) -> Read:
        if field.kind in ("doc", "docs") and field.doc is not None:
            read = self.of(field.doc)
            return _list_of(read) if field.kind == "docs" else read
        if field.kind in ("list", "set") and field.items:
            return _list_of(self._checked(field.items[0]))
        if field.kind == "tuple" and field.items:
            return _tuple_of([self._checked(item) for item in field.items])
        if field.kind == "dict" and field.items:
            return _dict_of(self._checked(field.items[-1]))
        if field.kind == "tensor":
            return lambda value: _array(value, field)
        if field.kind == "bytes":
            return to_bytes
        if field.kind in EXACT:
            return _exact(field.kind, EXACT[field.kind])
        return lambda value: value


def _at(name: str | int, read: Read, item: Any) -> Any:
    try:
        return read(item)
    except (ValueError, TypeError) as error:
        raise Mismatch.within(error, name) from None


def _list_maker(read: Read, wrap: Callable[[list[Any]], list[Any]]) -> Read:
    inner = _list_of(read)
    return lambda value: wrap(inner(value))


def _list_of(read: Read) -> Read:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise Mismatch(f"expected a list, got {type(value).__name__}", "list_type")
        made: list[Any] = []
        try:
            for item in value:
                made.append(read(item))  # its length says where it went wrong
        except (ValueError, TypeError) as error:
            raise Mismatch.within(error, len(made)) from None
        return made

    return convert


def _tuple_of(reads: list[Read | None]) -> Read:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) != len(reads):
            raise Mismatch(f"expected a list of {len(reads)}", "tuple_type")
        pairs = enumerate(zip(reads, value, strict=True))
        return [item if read is None else _at(index, read, item) for index, (read, item) in pairs]

    return convert


def _dict_of(read: Read) -> Read:
    def convert(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise Mismatch(f"expected an object, got {type(value).__name__}", "dict_type")
        return {key: _at(str(key), read, item) for key, item in value.items()}

    return convert


def _or_none(field: Field, read: Read) -> Read:
    return (lambda value: None if value is None else read(value)) if field.nullable else read


def _unless_made(read: Read) -> Read:
    return lambda value: value if isinstance(value, BaseModel) else read(value)


def _of_class(made: Callable[[bytes], Any]) -> Read:
    return lambda value: made(to_bytes(value))


def _fields_given(value: Any) -> int:
    return len(value.model_fields_set) if isinstance(value, BaseModel) else 0


def _exact(kind: str, expected: type) -> Read:
    def convert(value: Any) -> Any:
        if type(value) is expected:
            return value
        if expected is float and type(value) is int:
            return float(value)
        raise Mismatch(f"expected {kind}, got {type(value).__name__}", f"{kind}_type")

    return convert


def _array(value: Any, field: Field) -> np.ndarray:
    return tensors.shaped(tensors.from_json(value, field.dtype), field.shape)


def to_bytes(value: Any) -> bytes:
    """Bytes from base64 text, or as they are.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"expected base64: {error}") from None
    raise ValueError(f"expected base64 text, got {type(value).__name__}")


def check_depth(value: Any, limit: int = MAX_DEPTH) -> Any:
    """`value` itself, when it nests no deeper than `limit`.

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
