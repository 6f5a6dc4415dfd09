"""Validates one large document with pydantic while other threads can run; of a list only the first error is listed.

pydantic holds the GIL while it reads a document, and listing a wrong item costs as much as reading a hundred right ones.
So its schema is changed here: between two items it calls a Python function, which does nothing.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import SchemaValidator, core_schema

_CALLED = "function-before[breathe(), "
#: The keys under which a schema has other schemas: one, or several by name or in a list.
_INNER = {"schema", "items_schema", "keys_schema", "values_schema", "extras_schema", "choices", "fields", "definitions"}
_INNER |= {"lax_schema", "strict_schema", "json_schema", "python_schema", "steps", "arguments_schema"}
_ITEMS = {"list": "items_schema", "set": "items_schema", "frozenset": "items_schema", "dict": "values_schema"}
_KINDS: dict[str, Any] = {
    "list": core_schema.ListSchema,
    "set": core_schema.SetSchema,
    "frozenset": core_schema.FrozenSetSchema,
    "tuple": core_schema.TupleSchema,
    "dict": core_schema.DictSchema,
}
#: The kinds of schemas that can stop at the first error, in this version of pydantic.
_FAILS_FAST = {kind for kind, of in _KINDS.items() if "fail_fast" in typing.get_type_hints(of)}


def breathe(value: Any) -> Any:
    """Does nothing; calling a Python function lets other threads run."""
    return value


def validator(model: type[BaseModel]) -> Any:
    """Builds a validator that is equivalent to the model's own."""
    schema = model.__pydantic_core_schema__
    if not isinstance(schema, dict):  # it is not complete yet
        return model.__pydantic_validator__
    try:  # without those that its classes have made already, which are used again else
        return SchemaValidator(_changed(schema), None, _use_prebuilt=False)
    except TypeError:  # this pydantic_core does not support it
        return SchemaValidator(_changed(schema))


def plain(place: str | int) -> str | int:
    """A step of an error's place as the model's own validator names it."""
    while isinstance(place, str) and _CALLED in place:
        before, _, after = place.partition(_CALLED)
        depth = 0
        for at, letter in enumerate(after):
            depth += (letter == "[") - (letter == "]")
            if depth < 0:
                place = before + after[:at] + after[at + 1 :]
                break
        else:
            return place
    return place


def _changed(schema: Any) -> Any:
    """A copy of a schema, changed at all levels."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_changed, schema))
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    is_schema = isinstance(made.get("type"), str)  # else they are fields by name
    made |= {key: _changed(held) for key, held in schema.items() if key in _INNER or not is_schema}
    kind = made.get("type")
    if kind in _FAILS_FAST:
        made["fail_fast"] = True
    item = _ITEMS.get(kind) if isinstance(kind, str) else None
    if item is not None and item in made:
        made[item] = core_schema.no_info_before_validator_function(breathe, made[item])
    return made
