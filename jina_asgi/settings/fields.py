"""Reads the part of a call that an option names: a field of its documents, its context, or a header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_CONTEXT = ("identity", "tenant", "priority")


def field_of(path: str, option: str) -> Callable[[Any], Any]:
    """Builds a function that reads a document's field: "tokens", "meta.tokens", or a field's length, "len:text".

    Raises:
        ValueError: the path is malformed; the message names `option`.
    """
    measure, _, names = path.rpartition(":")
    fields = names.split(".")
    if measure not in ("", "len") or not _are_names(fields):
        raise ValueError(f'{option}={path!r}: expected a field, such as "tokens", or its length, "len:text"')

    def read(doc: Any) -> Any:
        for name in fields:
            doc = doc[name] if isinstance(doc, Mapping) else getattr(doc, name)
        return len(doc) if measure else doc

    return read


def part_of(path: str, option: str) -> Callable[[Any], list[Any]]:
    """Builds a function that reads a part of a call: "context:identity.org", "header:x-tenant", or a document field.

    It returns one value for each document for a field, else a single value, None if it is missing. Clients can send
    any header.

    Raises:
        ValueError: the path is malformed; the message names `option`.
    """
    kind, _, name = path.partition(":")
    if kind == "header" and name:
        return lambda call: [call.context.headers.get(name.lower())]
    if kind == "context" and _are_names(names := name.split(".")) and names[0] in _CONTEXT:
        return lambda call: [_within(call.context, names)]
    try:
        read = field_of(path, option)
    except ValueError:
        raise ValueError(
            f'{option}={path!r}: expected "context:identity", or what lies in it ("context:identity.org"), a header '
            '("header:x-tenant"), or a field of the documents'
        ) from None
    return lambda call: [read(doc) for doc in call.docs.typed]


def _within(value: Any, names: list[str]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _are_names(names: list[str]) -> bool:
    return all(name.isidentifier() and name[0] != "_" for name in names)
