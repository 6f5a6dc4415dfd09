"""Shortens lists of validation errors, in FastAPI's shape; a last entry counts what is not listed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: The most errors that are listed; one more entry counts the rest.
MAX_ERRORS = 100
#: The `type` of the summary entry.
MORE = "too_many_errors"
_LARGEST_COUNT = 2**53


def shortened(
    entries: list[dict[str, Any]], *, unread: int = 0, only_first: bool = False, most: int = MAX_ERRORS
) -> list[dict[str, Any]]:
    """Return at most `most` entries of a list of errors, plus a summary entry if anything is left out.

    Args:
        entries: the errors; summary entries among them are added up.
        unread: how many documents were not checked.
        only_first: only the first error of each list or mapping was looked for.
        most: how many errors are listed.
    """
    listed, more = [], 0
    for entry in entries:
        if (summary := _summary_of(entry)) is None:
            listed.append(entry)
        else:
            more, unread = more + _number(summary.get("more")), unread + _number(summary.get("unread"))
            only_first = only_first or summary.get("only_first") is True
    more += max(0, len(listed) - most)
    if not (more or unread or only_first):
        return listed
    parts = [f"{more} more errors"] if more else []
    if unread:
        parts.append(f"errors in {unread} documents that were not looked at")
    if only_first:
        parts.append("in each list or mapping all errors but the first, as the request is large")
    summary = {"more": more, "unread": unread, "only_first": only_first}
    return [*listed[:most], {"type": MORE, "loc": [], "msg": f"not listed: {'; '.join(parts)}", "ctx": summary}]


def number_of(entries: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of errors of a list, those only counted by its summary included."""
    return sum(1 if (summary := _summary_of(entry)) is None else _number(summary.get("more")) for entry in entries)


def is_summary(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is a summary, not an error."""
    return _summary_of(entry) is not None


def _summary_of(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the counts of a summary entry; None for an error. A user's own entry of that type is not trusted."""
    kind, summary = entry.get("type"), entry.get("ctx")
    return summary if type(kind) is str and kind == MORE and type(summary) is dict and "more" in summary else None


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _LARGEST_COUNT else 0
