"""Validation errors in FastAPI's form, with at most a line or two of the wrong value."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

from pydantic import ValidationError

from jina_asgi.errors._error_lists import MAX_ERRORS, MORE, shortened
from jina_asgi.errors._shown import safe_str

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
