"""Makes documents without pydantic, by rows or by columns, from values of exactly the plan's types.

For classes without rules of their own; all other values are left to the caller's slow reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from jina_asgi.documents import pydantic_facts, tensors
from jina_asgi.documents.conversions import Mismatch
from jina_asgi.types import Field

if TYPE_CHECKING:
    from jina_asgi.documents import document_types

Read = Callable[[Any], Any]
#: As `Read`, for a dict and the errors that were found in it already.
Slow = Callable[..., Any]
#: Makes documents of columns, their number, and rows to use; None: read them by rows.
ReadColumns = Callable[..., list[Any] | None]
EXACT: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_MISSING = object()
_NONE = type(None)


@dataclass(frozen=True, slots=True)
class FieldSetter:
    """Sets one field.

    A value of type `exact` is converted by `make` (None: kept); any other by `other` (None: the slow reader).
    `default` makes the value of a missing field; None if pydantic must.
    """

    name: str
    exact: type | None
    make: Read | None
    other: Read | None
    nullable: bool
    default: Callable[[], Any] | None
    #: For tensor fields: the class of a whole column, its dtype and the shape of a row.
    view: type[np.ndarray] | None = None
    dtype: np.dtype[Any] | None = None
    shape: tuple[int | None, ...] | None = None

    @classmethod
    def tensor(
        cls, field: Field, tensor: document_types.TensorType, default: Callable[[], Any] | None, *, nullable: bool
    ) -> FieldSetter:
        """The setter of a tensor field."""
        dtype = None if field.dtype is None else np.dtype(field.dtype)
        shape, view, convert = field.shape, tensor.view, tensor.convert

        def make(array: np.ndarray) -> Any:
            fits = shape is None or array.shape == shape
            if view is not None and fits and (array.dtype is dtype or (dtype is None and array.dtype.kind in "biuf")):
                return array.view(view)
            return convert(tensors.cast(array, field.dtype))

        def other(value: Any) -> Any:
            return convert(value) if pydantic_facts.is_torch(value) else make(tensors.from_json(value, field.dtype))

        exact = None if view is None else np.ndarray
        return cls(field.name, exact, make, other, nullable, default, view, dtype, shape)


def row_reader(model: type[BaseModel], steps: list[FieldSetter], slow: Slow) -> Read:
    """Builds a reader of one document from a dict; `slow` reads documents with other types.

    Values that were read already are not read again: nested documents would be, once for each level.
    """
    plan = [(s.name, s.exact, s.make, s.other, s.nullable, s.default) for s in steps]
    count, names = len(plan), {s.name for s in steps}
    new, put = model.__new__, object.__setattr__

    def read(value: Any) -> Any:
        if type(value) is not dict:
            return value if type(value) is model else slow(value)
        values: dict[str, Any] = {}
        given = names.copy() if len(value) == count else names.intersection(value)
        name = ""
        try:
            for name, exact, make, other, nullable, default in plan:
                item = value.get(name, _MISSING)
                if type(item) is exact:
                    values[name] = item if make is None else make(item)
                elif item is _MISSING:
                    if default is None:
                        break
                    values[name] = default()
                    given.discard(name)
                elif item is None:
                    if not nullable:
                        break
                    values[name] = None
                elif other is not None:
                    values[name] = other(item)
                elif exact is float and type(item) is int:
                    values[name] = float(item)
                else:
                    break
            else:
                doc = new(model)
                put(doc, "__dict__", values)
                put(doc, "__pydantic_fields_set__", given)
                put(doc, "__pydantic_extra__", None)
                put(doc, "__pydantic_private__", None)
                return doc
        except (ValueError, TypeError, OverflowError) as error:
            rest = {key: values.get(key, item) for key, item in value.items() if key != name}
            return slow(rest, [(name, Mismatch.within(error, name))])
        return slow({key: values.get(key, item) for key, item in value.items()})

    return read


def column_reader(model: type[BaseModel], steps: list[FieldSetter]) -> ReadColumns:
    """Builds a reader of `count` documents from a dict of columns; it returns None if a column has other types.

    All loops are in C. The tensors of a stacked column share its memory. `rows`, if given, are dicts of the same
    values that the caller no longer uses: they become the documents' own.
    """
    names = [s.name for s in steps]
    slots = BaseModel.__dict__
    set_dict, set_given = slots["__dict__"].__set__, slots["__pydantic_fields_set__"].__set__
    set_extra, set_private = slots["__pydantic_extra__"].__set__, slots["__pydantic_private__"].__set__

    def read(columns: Mapping[str, Any], count: int, rows: list[dict[str, Any]] | None = None) -> list[Any] | None:
        made = []
        for step in steps:
            column = columns.get(step.name)
            if column is not None:
                values = _column(step, column)
            else:
                values = None if step.default is None else [step.default() for _ in repeat(None, count)]
            if values is None:
                return None
            made.append(values)
        given = {name for name in names if name in columns}
        docs = list(map(model.__new__, repeat(model, count)))
        if rows is None:
            rows = list(map(dict, map(zip, repeat(names), zip(*made, strict=True))))
        else:
            for name, values in zip(names, made, strict=True):
                if values is not columns[name]:
                    _run(map(dict.__setitem__, rows, repeat(name), values))
        _run(map(set_dict, docs, rows))
        _run(map(set_given, docs, map(set.copy, repeat(given))))
        _run(map(set_extra, docs, repeat(None)))
        _run(map(set_private, docs, repeat(None)))
        return docs

    return read


def _run(calls: Iterator[Any]) -> None:
    """Runs a `map` to its end."""
    deque(calls, maxlen=0)


def _column(step: FieldSetter, column: Any) -> list[Any] | None:
    if type(column) is np.ndarray:
        if step.view is None or column.ndim < 2:
            return None
        if column.dtype is not step.dtype and not (step.dtype is None and column.dtype.kind in "biuf"):
            return None
        if step.shape is not None and column.shape[1:] != step.shape:
            return None
        return list(column.view(step.view))
    types = set(map(type, column))
    if types == {np.ndarray} and step.dtype is not None and step.view is not None and step.shape is not None:
        dtype, shape, view = step.dtype, step.shape, step.view
        made = [array.view(view) for array in column if array.dtype is dtype and array.shape == shape]
        return made if len(made) == len(column) else None
    has_none = _NONE in types
    if has_none:
        if not step.nullable:
            return None
        types.discard(_NONE)
    make = step.make if types <= {step.exact} else step.other
    if make is None:
        return column if types <= {step.exact} else None
    try:
        if has_none:
            return [None if item is None else make(item) for item in column]
        return list(map(make, column))
    except (ValueError, TypeError, OverflowError):
        return None  # read again row by row, to find the place


def default_of(model: type[BaseModel], name: str) -> Callable[[], Any] | None:
    """Builds a function that makes a field's default; None if the field is required or its default is not a plain value."""
    from jina_asgi.documents import document_types  # docarray, only where there are classes

    info = model.model_fields[name]
    if info.is_required() or info.validate_default:
        return None
    if info.default is not PydanticUndefined and isinstance(info.default, str | int | float | bytes | None):
        default = info.default
        return lambda: default
    if info.default_factory is None or info.default_factory_takes_validated_data:
        return None
    id_class = document_types.string_types(model).get(name)
    factory: Any = info.default_factory
    return factory if id_class is None else lambda: id_class(factory())
