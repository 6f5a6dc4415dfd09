"""Renders values of user code as short text without ever raising. Pure.

A user's objects may raise anything from `str` and `repr`, KeyboardInterrupt too, and may be huge. These methods are
called here and nowhere else.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

#: The longest text in bytes of UTF-8: an error stays below 8 KB with what JSON and protobuf add.
LONGEST = 1800
_LONGEST_NAME = 100
_MOST_ARGUMENTS = 20


class _Repr(reprlib.Repr):
    """As `reprlib.Repr`, but shortens bytes, too."""

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:
        return self.repr_str(repr(x[: self.maxstring]), level)

    repr_bytearray = repr_bytes


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = 80
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HOLDING = (list, tuple, set, frozenset, dict)
#: The `__str__` methods that build an exception's text from its arguments.
_PLAIN = (BaseException.__str__, KeyError.__str__, OSError.__str__)
_args_of, _mro_of = BaseException.__dict__["args"].__get__, type.__dict__["__mro__"].__get__
_name_of = type.__dict__["__name__"].__get__  # a metaclass may override it


def safe_repr(value: Any) -> str:
    """Return `repr(value)`, shortened in the middle."""
    try:
        return truncated(_REPR.repr(value))
    except BaseException:  # noqa: BLE001  # a user's `repr` may raise anything
        return f"<a {class_name(value)} that cannot be shown>"


def safe_str(value: Any) -> str:
    """Return `str(value)`, truncated; of an exception its message."""
    try:
        return truncated(
            str(value) if is_cheap(value) else ", ".join(map(safe_repr, _args_of(value)[:_MOST_ARGUMENTS]))
        )
    except BaseException:  # noqa: BLE001  # a user's `str` may raise anything
        return "(its own text cannot be read)"


def is_cheap(value: Any) -> bool:
    """Whether `str` of a value is fast: False for an exception with large arguments, which `str` would copy."""
    kind = type(value)
    if not issubclass(kind, BaseException):
        return True
    if next(vars(found)["__str__"] for found in _mro_of(kind) if "__str__" in vars(found)) not in _PLAIN:
        return True  # a user's own method
    arguments = _args_of(value)
    if len(arguments) == 1 and type(arguments[0]) is str and not issubclass(kind, KeyError):
        return True  # the text itself
    return len(arguments) <= _MOST_ARGUMENTS and all(map(_is_small, arguments))


def _is_small(argument: Any) -> bool:
    """Whether the `repr` of an exception's argument is short; True for objects of user classes."""
    kind = type(argument)
    if kind in (str, bytes, bytearray):
        return len(argument) <= LONGEST
    if kind in _HOLDING:
        if len(argument) > _MOST_ARGUMENTS:
            return False
        within = [*argument, *argument.values()] if kind is dict else argument
        return all(type(each) not in _HOLDING and _is_small(each) for each in within)
    return True


def class_name(value: Any) -> str:
    """Return the name of a value's class."""
    return truncated(_name_of(type(value)), _LONGEST_NAME)


def truncated(text: str, limit: int = LONGEST) -> str:
    """Return at most `limit` UTF-8 bytes of a text, with control characters and lone surrogates escaped."""
    cut = str.__getitem__(text, slice(0, limit + 1))  # a plain str, also of a subclass
    if not cut.isprintable():
        cut = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", cut)
    raw = cut.encode(errors="backslashreplace")
    return raw.decode() if len(raw) <= limit else f"{raw[: limit - 3].decode(errors='ignore')}..."


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
