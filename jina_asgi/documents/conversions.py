"""Readers of one value, composed of others: lists, mappings, base64, arrays, integers of at most 64 bits."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from jina_asgi.documents import tensors
from jina_asgi.errors._shown import MAX_ERRORS, MORE, safe_str, shortened
from jina_asgi.types import Field

#: The first errors that are listed with their input.
MAX_INPUTS = 20
#: Listing pydantic's errors costs 2 µs each; above this many only their number is reported.
_MAX_LISTED = 10_000
_TEXT, _PART, _ITEMS = 200, 40, 8


class Mismatch(ValueError):
    """A value does not fit the plan; `errors` lists the reasons, each with its place in the value."""

    def __init__(self, message: str, kind: str = "value_error", errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.errors = [{"type": kind, "loc": [], "msg": message}] if errors is None else errors

    @classmethod
    def within(cls, error: Exception, *path: str | int) -> Mismatch:
        """Makes the error of a part an error of the whole."""
        entries = [{**entry, "loc": [*map(_key, path), *entry["loc"]]} for entry in errors_of(error)]
        return cls("wrong within", errors=entries)


def errors_of(error: Exception) -> list[dict[str, Any]]:
    """Lists the errors of pydantic, or of a reader: at most 100 entries with `type`, `loc`, `msg`, `input`, `ctx`.

    If there are more, a last entry counts them (`shortened`). Texts and inputs are cut, so that an answer does not grow with
    the request.
    """
    if isinstance(error, Mismatch):
        return shortened(error.errors)
    if not isinstance(error, ValidationError):
        return [{"type": "value_error", "loc": [], "msg": _cut(safe_str(error), _TEXT)}]
    count = error.error_count()
    if count > _MAX_LISTED:
        return [{"type": MORE, "loc": [], "msg": f"{count} values are wrong"}]
    entries = []
    for number, entry in enumerate(error.errors(include_url=False)[:MAX_ERRORS]):
        listed: dict[str, Any] = {
            "type": entry["type"],
            "loc": [_key(part) for part in entry["loc"]],
            "msg": _cut(entry["msg"], 2 * _TEXT),
        }
        if number < MAX_INPUTS:
            listed["input"] = brief(entry["input"])
        if "ctx" in entry:
            listed["ctx"] = {key: brief(value) for key, value in entry["ctx"].items()}
        entries.append(listed)
    unlisted = {"type": MORE, "loc": [], "msg": "", "ctx": {"more": count - MAX_ERRORS}}
    return entries if count <= MAX_ERRORS else shortened([*entries, unlisted])


def brief(value: Any, depth: int = 2) -> Any:
    """Shortens a value of any size to a small JSON value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _cut(str.__str__(value), _TEXT if depth == 2 else _PART)
    if isinstance(value, dict) and depth:
        made = {_cut(str(key), _PART): brief(value[key], depth - 1) for key in islice(value, _ITEMS)}
        return made if len(value) <= _ITEMS else {**made, "…": f"{len(value)} in all"}
    if isinstance(value, list | tuple) and depth:
        items = [brief(item, depth - 1) for item in value[:_ITEMS]]
        return items if len(value) <= _ITEMS else [*items, f"… {len(value)} in all"]
    if isinstance(value, ValueError | AssertionError):  # what a validator raised
        return _cut(str(value), _TEXT)
    return f"<{type(value).__name__}>"


def _key(part: str | int) -> str | int:
    return _cut(part, 2 * _PART) if isinstance(part, str) else part


def _cut(text: str, length: int) -> str:
    short = text if len(text) <= length else text[: length - 1] + "…"
    return short.encode(errors="replace").decode()  # a lone surrogate has no UTF-8


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
