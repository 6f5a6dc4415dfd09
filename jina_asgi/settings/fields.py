"""What an option names in a call: a field of its documents, something of its context, or one of its headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_CONTEXT = ("identity", "tenant", "priority")


def field_of(path: str, option: str) -> Callable[[Any], Any]:
    """What reads a field of a document: "tokens", "meta.tokens", or the length of one, "len:text".

    Raises:
        ValueError: it is no such path; `option` is named.
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
    """What reads a part of a call: "context:identity.org", "header:x-tenant", or a field, of each of its documents.

    Nothing, where the context or the headers lack it. A header is whatever the client says.

    Raises:
        ValueError: it is no such path; `option` is named.
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
