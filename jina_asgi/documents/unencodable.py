"""Finds the part of a value that cannot be written, after writing has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel

from jina_asgi.errors._shown import safe_str

ERRORS = (TypeError, ValueError, OverflowError, AttributeError, RecursionError)
_DEEPEST = 64


def explain(
    value: Any, error: BaseException, write: Callable[[Any], Any], fields: Callable[[Any], Any], *, own: bool = True
) -> str:
    """Says which part of a value cannot be written, and why: "data.0.vector: a tensor of dtype ...".

    Args:
        value: the value.
        error: the error of writing it.
        write: writes a part of it.
        fields: returns the fields of a document.
        own: use the error of writing the part; else use `error`.
    """
    place: list[str] = []
    found = True
    while found and len(place) < _DEEPEST:
        found = False
        for key, part in _parts(value, fields):
            try:
                write(part)
            except ERRORS as raised:
                place.append(str(key))
                value, error, found = part, raised if own else error, True
                break
    why = safe_str(error.__cause__ or error)
    return f"{'.'.join(place)}: {why}" if place else why


def _parts(value: Any, fields: Callable[[Any], Any]) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, BaseModel):
        value = fields(value)
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()
