"""Readers of one value, composed of others: lists, mappings, base64, arrays, integers of at most 64 bits."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from pydantic import BaseModel

from jina_asgi.documents import tensors
from jina_asgi.documents.mismatch import Mismatch
from jina_asgi.types import Field

Read = Callable[[Any], Any]
#: The range of integers in every encoding; a text of fewer digits is always within it.
MIN_INT, MAX_INT, _SHORT = -(2**63), 2**64, 19


def read_at(name: str | int, read: Read, item: Any) -> Any:
    """Reads a value; an error gets the value's place in the whole."""
    try:
        return read(item)
    except (ValueError, TypeError) as error:
        raise Mismatch.within(error, name) from None


def list_maker(read: Read, wrap: Callable[[list[Any]], list[Any]]) -> Read:
    """Reads a list into a list of another class."""
    inner = list_of(read)
    return lambda value: wrap(inner(value))


def list_of(read: Read) -> Read:
    """Reads each item of a list."""

    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise Mismatch(f"expected a list, got {type(value).__name__}", "list_type")
        made: list[Any] = []
        try:
            for item in value:
                made.append(read(item))  # its length is the place of the error
        except (ValueError, TypeError) as error:
            raise Mismatch.within(error, len(made)) from None
        return made

    return convert


def tuple_of(reads: list[Read | None]) -> Read:
    """Reads each item of a tuple with its own reader; None keeps the item."""

    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) != len(reads):
            raise Mismatch(f"expected a list of {len(reads)}", "tuple_type")
        pairs = enumerate(zip(reads, value, strict=True))
        return [item if read is None else read_at(index, read, item) for index, (read, item) in pairs]

    return convert


def dict_of(read: Read) -> Read:
    """Reads each value of a mapping."""

    def convert(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise Mismatch(f"expected an object, got {type(value).__name__}", "dict_type")
        return {key: read_at(str(key), read, item) for key, item in value.items()}

    return convert


def or_none(field: Field, read: Read) -> Read:
    """Keeps None."""
    return (lambda value: None if value is None else read(value)) if field.nullable else read


def unless_document(read: Read) -> Read:
    """Keeps values that are documents already."""
    return lambda value: value if isinstance(value, BaseModel) else read(value)


def of_class(made: Callable[[bytes], Any]) -> Read:
    """Reads bytes into a subclass of bytes."""
    return lambda value: made(to_bytes(value))


def fields_given(value: Any) -> int:
    """The number of fields that were set in a document."""
    return len(value.model_fields_set) if isinstance(value, BaseModel) else 0


def array(value: Any, field: Field) -> np.ndarray:
    """Reads an array in the field's dtype and shape.

    Raises:
        ValueError: the value is not an array, or has another dtype or shape.
    """
    return tensors.shaped(tensors.from_json(value, field.dtype), field.shape)


def to_bytes(value: Any) -> bytes:
    """Reads bytes from base64 text; keeps bytes.

    Raises:
        ValueError: the value is neither.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"expected base64: {error}") from None
    raise ValueError(f"expected base64 text, got {type(value).__name__}")


def integer(value: Any) -> Any:
    """Keeps a value, but refuses integers, also as text, of more than 64 bits; other errors are left to pydantic.

    Raises:
        Mismatch: the integer has more than 64 bits.
    """
    if type(value) is str:
        if len(value) < _SHORT:
            return value
        try:
            found = int(value)
        except ValueError:
            return value
    elif type(value) is int:
        found = value
    else:
        return value
    if MIN_INT <= found < MAX_INT:
        return value
    raise Mismatch("Input should be an integer of at most 64 bits", "int_parsing_size")


def integers(value: Any) -> Any:
    """As `integer`, for each text in a list or a mapping; numbers were already limited by the parser."""
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value
    if not isinstance(value, list | tuple | set | frozenset | dict) or str not in set(map(type, items)):
        return value
    return (dict_of if isinstance(value, dict) else list_of)(integer)(value)
