"""From plain values (what JSON or msgpack hold) to one document: the checks of a field plan, compiled once.

A reader takes the fast way, exact types and no pydantic, where the class allows it; anything unexpected is left
to pydantic, which converts what it may and names what is wrong. Without a class the plan alone checks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, PydanticUndefined

from jina_asgi import schemas, tensors
from jina_asgi.types import Field, Schema

Read = Callable[[Any], Any]
MAX_DEPTH = 64
_EXACT: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_MISSING = object()


class Mismatch(ValueError):
    """A value is not what the plan says; `path` leads to it within the document."""

    def __init__(self, message: str, path: tuple[str | int, ...] = (), kind: str = "value_error") -> None:
        super().__init__(message)
        self.path, self.kind = path, kind

    def entry(self, index: int) -> dict[str, Any]:
        """The error as FastAPI lists it."""
        return {"type": self.kind, "loc": [index, *self.path], "msg": str(self)}


def errors_of(error: ValidationError) -> list[dict[str, Any]]:
    """pydantic's errors as JSON values: without links, and without inputs that have no JSON form."""
    try:
        entries = orjson.loads(error.json(include_url=False))
    except PydanticSerializationError:
        entries = error.errors(include_url=False, include_context=False, include_input=False)
    return [{**entry, "loc": list(entry["loc"])} for entry in entries[:100]]


def reader(schema: Schema, name: str) -> Read:
    """What reads one document of the schema's class `name`.

    The reader raises ValidationError or Mismatch.
    """
    return _Readers(schema).of(name)


class _Readers:
    """The readers of one schema's documents; a document may hold its own kind, so they are found by name."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.made: dict[str, Read] = {}

    def of(self, name: str) -> Read:
        if name not in self.made:
            self.made[name] = lambda value: self.made[name](value)  # a recursive class finds itself
            model = self.schema.models.get(name)
            self.made[name] = self._untyped(name) if model is None else self._typed(name, model)
        return self.made[name]

    def _untyped(self, name: str) -> Read:
        fields = [(f, self.converter(f)) for f in self.schema.documents[name]]

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise Mismatch(f"expected an object with the fields of {name}, got {type(value).__name__}")
            made = {}
            for field, convert in fields:
                item = value.get(field.name, _MISSING)
                if item is _MISSING:
                    if field.required:
                        raise Mismatch("Field required", (field.name,), "missing")
                elif item is None and field.nullable:
                    made[field.name] = None
                else:
                    made[field.name] = _at(field.name, convert, item)
            return made

        return read

    def _typed(self, name: str, model: type[BaseModel]) -> Read:
        slow = self._by_pydantic(name, model)
        if not self.is_fast(name, set()):
            return slow
        return _fast_reader(model, self._steps(name, model), slow)

    def _by_pydantic(self, name: str, model: type[BaseModel]) -> Read:
        """Bytes and tensors are made here, from the plan; all else is pydantic's."""
        converters = {f.name: c for f in self.schema.documents[name] if (c := self.binary(f)) is not None}
        info = model.model_fields
        wire_names = {key: name for name in converters for key in (name, info[name].alias) if key}
        validate = model.__pydantic_validator__.validate_python

        def read(value: Any) -> Any:
            if type(value) is dict:
                check_depth(value)
                changed = {
                    key: _at(key, converters[wire_names[key]], item)
                    for key, item in value.items()
                    if key in wire_names and item is not None
                }
                value = {**value, **changed} if changed else value
            return validate(value, by_alias=True, by_name=True)

        return read

    def is_fast(self, name: str, seen: set[str]) -> bool:
        """Whether documents of this name, and those within, need no pydantic."""
        model = self.schema.models[name]
        if name in seen:
            return True
        seen.add(name)
        if schemas.needs_pydantic(model):
            return False
        return all(
            field.kind in ("int", "float", "bool", "bytes", "tensor")
            or (field.kind == "str" and field.tag in (None, "id"))
            or (field.kind in ("doc", "docs") and field.doc is not None and self.is_fast(field.doc, seen))
            for field in self.schema.documents[name]
        )

    def _steps(self, name: str, model: type[BaseModel]) -> list[_Step]:
        tensor_types, lists = schemas.tensor_types(model), schemas.doc_lists(model)
        strings = schemas.string_types(model)
        steps = []
        for field in self.schema.documents[name]:
            make: Read | None = None
            if field.kind == "tensor":
                make = _tensor_maker(field, tensor_types[field.name])
            elif field.kind == "bytes":
                make = to_bytes
            elif field.kind == "doc" and field.doc is not None:
                make = self.of(field.doc)
            elif field.kind == "docs" and field.doc is not None:
                make = _list_maker(self.of(field.doc), lists[field.name].make)
            steps.append(
                _Step(
                    field.name,
                    _EXACT.get(field.kind),
                    strings.get(field.name, make),
                    field.nullable,
                    _default_of(model, field.name),
                )
            )
        return steps

    def binary(self, field: Field) -> Read | None:
        """What turns base64 into bytes and lists into arrays anywhere within a field; None: nothing to do."""
        if field.kind == "bytes":
            return to_bytes
        if field.kind == "tensor":
            return lambda value: tensors.from_json(value, field.dtype)
        if field.kind in ("doc", "docs") and field.doc is not None:
            if not self.has_binary(field.doc, set()):
                return None
            return _list_of(self.of(field.doc)) if field.kind == "docs" else _unless_made(self.of(field.doc))
        inner = [self.binary(item) for item in field.items]
        if field.kind in ("list", "set") and inner and inner[0] is not None:
            return _list_of(inner[0])
        if field.kind == "dict" and inner and inner[-1] is not None:
            return _dict_of(inner[-1])
        return None

    def has_binary(self, name: str, seen: set[str]) -> bool:
        if name in seen:
            return False
        seen.add(name)
        return any(
            field.kind in ("bytes", "tensor")
            or (field.doc is not None and self.has_binary(field.doc, seen))
            or any(self.binary(item) is not None for item in field.items)
            for field in self.schema.documents[name]
        )

    def converter(self, field: Field) -> Read:
        """What checks and makes a field's value where no class is at hand."""
        if field.kind == "doc" and field.doc is not None:
            return self.of(field.doc)
        if field.kind == "docs" and field.doc is not None:
            return _list_of(self.of(field.doc))
        if field.kind in ("list", "set", "tuple") and len(field.items) == 1:
            return _list_of(_or_none(field.items[0], self.converter(field.items[0])))
        if field.kind == "dict" and field.items:
            return _dict_of(_or_none(field.items[-1], self.converter(field.items[-1])))
        if field.kind == "tensor":
            return lambda value: _shaped(tensors.from_json(value, field.dtype), field)
        if field.kind == "bytes":
            return to_bytes
        if field.kind in _EXACT:
            return _exact(field.kind, _EXACT[field.kind])
        return check_depth


class _Step:
    """How the fast reader handles one field."""

    __slots__ = ("default", "exact", "make", "name", "nullable")

    def __init__(self, name: str, exact: type | None, make: Any, nullable: bool, default: Any) -> None:
        self.name, self.exact, self.make, self.nullable, self.default = name, exact, make, nullable, default


def _fast_reader(model: type[BaseModel], steps: list[_Step], slow: Read) -> Read:
    plan = [(s.name, s.exact, s.make, s.nullable, s.default) for s in steps]
    names = {s.name for s in steps}
    new, put = model.__new__, object.__setattr__

    def read(value: Any) -> Any:
        if type(value) is not dict:
            return value if type(value) is model else slow(value)
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, exact, make, nullable, default in plan:
                item = value.get(name, _MISSING)
                if item is _MISSING:
                    if default is None:
                        return slow(value)
                    values[name] = default()
                elif item is None:
                    if not nullable:
                        return slow(value)
                    values[name] = None
                elif exact is not None and type(item) is not exact:
                    return slow(value)
                else:
                    values[name] = item if make is None else make(item)
        except (ValueError, TypeError) as error:
            raise _within(name, error) from None
        doc = new(model)
        put(doc, "__dict__", values)
        put(doc, "__pydantic_fields_set__", names.intersection(value))
        put(doc, "__pydantic_extra__", None)
        put(doc, "__pydantic_private__", None)
        return doc

    return read


def _at(name: str, make: Read, item: Any) -> Any:
    """Make a field's value; what is wrong with it is said with the field's name."""
    try:
        return make(item)
    except (ValueError, TypeError) as error:
        raise _within(name, error) from None


def _within(name: str | int, error: ValueError | TypeError) -> Exception:
    """The error of a part, said of the whole: with the part's name in its path."""
    if isinstance(error, ValidationError):
        return error
    if isinstance(error, Mismatch):
        return Mismatch(str(error), (name, *error.path), error.kind)
    return Mismatch(str(error), (name,))


def _default_of(model: type[BaseModel], name: str) -> Callable[[], Any] | None:
    """What makes a field's default, None where it is required or its default is no plain value."""
    info = model.model_fields[name]
    if info.is_required():
        return None
    if info.default is not PydanticUndefined and isinstance(info.default, str | int | float | bytes | None):
        default = info.default
        return lambda: default
    if info.default_factory is None or info.validate_default:
        return None
    id_class = schemas.string_types(model).get(name)
    factory: Any = info.default_factory
    return factory if id_class is None else lambda: id_class(factory())


def _tensor_maker(field: Field, tensor: schemas.TensorType) -> Read:
    dtype, convert, view = field.dtype, tensor.convert, tensor.view
    native = None if dtype is None else np.dtype(dtype)

    def make(value: Any) -> Any:
        if type(value) is np.ndarray and view is not None and value.shape == (field.shape or value.shape):
            if native is value.dtype or (native is None and value.dtype.kind in "biuf"):
                return value.view(view)
        return convert(tensors.from_json(value, dtype))

    return make


def _list_maker(read: Read, wrap: Callable[[list[Any]], list[Any]]) -> Read:
    inner = _list_of(read)
    return lambda value: wrap(inner(value))


def _list_of(read: Read) -> Read:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple | set):
            raise Mismatch(f"expected a list, got {type(value).__name__}", (), "list_type")
        return [_at_index(index, read, item) for index, item in enumerate(value)]

    return convert


def _dict_of(read: Read) -> Read:
    def convert(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise Mismatch(f"expected an object, got {type(value).__name__}", (), "dict_type")
        return {key: _at(str(key), read, item) for key, item in value.items()}

    return convert


def _at_index(index: int, read: Read, item: Any) -> Any:
    try:
        return read(item)
    except (ValueError, TypeError) as error:
        raise _within(index, error) from None


def _or_none(field: Field, read: Read) -> Read:
    return (lambda value: None if value is None else read(value)) if field.nullable else read


def _unless_made(read: Read) -> Read:
    return lambda value: value if isinstance(value, BaseModel) else read(value)


def _exact(kind: str, expected: type) -> Read:
    def convert(value: Any) -> Any:
        if type(value) is expected:
            return value
        if expected is float and type(value) is int:
            return float(value)
        raise Mismatch(f"expected {kind}, got {type(value).__name__}", (), f"{kind}_type")

    return convert


def _shaped(array: np.ndarray, field: Field) -> np.ndarray:
    if field.shape is None or (
        array.ndim == len(field.shape)
        and all(want in (None, got) for want, got in zip(field.shape, array.shape, strict=True))
    ):
        return array
    want = [axis if axis is not None else "any" for axis in field.shape]
    if None not in field.shape and np.prod(field.shape) == array.size:  # type: ignore[arg-type]  # no None here
        return array.reshape(field.shape)  # type: ignore[arg-type]  # as docarray does where the sizes agree
    raise ValueError(f"expected a tensor of shape {want}, got {list(array.shape)}")


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
    raise Mismatch(f"nested deeper than {limit}", (), "too_deep")
