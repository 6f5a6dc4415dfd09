"""Lists of what is wrong with documents, in FastAPI's shape: cut short, with one last entry that says what is not listed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: At most so many errors are listed; one more entry says how many there are besides.
MAX_ERRORS = 100
#: The `type` of that entry.
MORE = "too_many_errors"
_LARGEST_COUNT = 2**53


def shortened(
    entries: list[dict[str, Any]], *, unread: int = 0, only_first: bool = False, most: int = MAX_ERRORS
) -> list[dict[str, Any]]:
    """At most so many of the entries of a list of errors, and one more that says what is not listed, where there is something.

    Args:
        entries: some of which may say so of the part that they are of.
        unread: how many documents were not looked at any more.
        only_first: of each list or mapping only the first error was looked for.
        most: how many errors are listed.
    """
    listed, more = [], 0
    for entry in entries:
        if (told := _unlisted(entry)) is None:
            listed.append(entry)
        else:
            more, unread = more + _number(told.get("more")), unread + _number(told.get("unread"))
            only_first = only_first or told.get("only_first") is True
    more += max(0, len(listed) - most)
    if not (more or unread or only_first):
        return listed
    said = [f"{more} more errors"] if more else []
    if unread:
        said.append(f"errors in {unread} documents that were not looked at")
    if only_first:
        said.append("in each list or mapping all errors but the first, as the request is large")
    told = {"more": more, "unread": unread, "only_first": only_first}
    return [*listed[:most], {"type": MORE, "loc": [], "msg": f"not listed: {'; '.join(said)}", "ctx": told}]


def number_of(entries: Iterable[Mapping[str, Any]]) -> int:
    """How many errors a list says there are, with those that it does not list."""
    return sum(1 if (told := _unlisted(entry)) is None else _number(told.get("more")) for entry in entries)


def is_summary(entry: Mapping[str, Any]) -> bool:
    """Whether an entry says what is not listed, and is no error itself."""
    return _unlisted(entry) is not None


def _unlisted(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an entry says is not listed; None for an error. It may be a user's own: only what is plainly ours is read."""
    kind, told = entry.get("type"), entry.get("ctx")
    return told if type(kind) is str and kind == MORE and type(told) is dict and "more" in told else None


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _LARGEST_COUNT else 0
