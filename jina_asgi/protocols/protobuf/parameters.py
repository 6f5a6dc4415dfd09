"""Converts parameters and results to Jina's protobuf, a Struct of plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic_core import PydanticSerializationError, to_jsonable_python

from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.protobuf.messages import Struct

#: Floats up to this represent every integer.
_WHOLE = 2.0**53
_DEEPEST = 96  # the nesting that every protobuf reads: 32 levels of a Struct


def parameters_of(message: Any) -> dict[str, Any]:
    """The parameters of a message; a number without a fraction is an int."""
    fields = message.parameters.fields
    return {key: _value(value) for key, value in fields.items()} if fields else {}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _WHOLE else number
    if kind == "struct_value":
        return {key: _value(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def struct_of(parameters: Mapping[str, Any]) -> Any:
    made = Struct()
    if parameters:
        try:
            plain = to_jsonable_python(dict(parameters), fallback=_number)
            if _levels(plain) > _DEEPEST:
                raise ValueError("expected at most 32 levels of mappings; protobuf cannot read deeper nesting")
            made.update(plain)
        except (ValueError, TypeError, PydanticSerializationError) as error:
            raise InvalidRequest(f"the parameters cannot be written as Jina's protobuf: {error}") from None
    return made


def _levels(value: Any) -> int:
    """The nesting of messages for a value in a Struct."""
    if isinstance(value, dict):
        return 3 + max(map(_levels, value.values()), default=0)
    if isinstance(value, list):
        return 2 + max(map(_levels, value), default=0)
    return 0


def _number(value: Any) -> Any:
    """Converts numpy's numbers and arrays in parameters and results."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
