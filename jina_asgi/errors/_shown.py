"""Values of a user's code as texts: short, however long they are, and never raising. Pure.

What such code raises, returns or writes may raise anything when it is touched, KeyboardInterrupt too, and may be huge.
Its `str` and `repr` are called here and nowhere else.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

#: Bytes that such a text has at most, in UTF-8: with what JSON and protobuf add, an error stays below 8 KB.
LONGEST = 1800
_LONGEST_NAME = 100
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_name_of = type.__dict__["__name__"].__get__  # a metaclass may have another idea of it


def shown(value: Any) -> str:
    """`repr`, with the middle of what is long left out."""
    try:
        return bounded(_REPR.repr(value))
    except BaseException:  # noqa: BLE001  # whatever its own `repr` raises
        return f"<a {kind_of(value)} that cannot be shown>"


def said(value: Any) -> str:
    """`str`, of an exception its message, cut where it is long."""
    try:
        return bounded(str(value))
    except BaseException:  # noqa: BLE001  # whatever its own `str` raises
        return "(its own text cannot be read)"


def kind_of(value: Any) -> str:
    """The name of a value's class."""
    return bounded(_name_of(type(value)), _LONGEST_NAME)


def bounded(text: str, limit: int = LONGEST) -> str:
    """A text of at most `limit` bytes of UTF-8, in which control characters and halves of surrogate pairs are escaped."""
    cut = str.__getitem__(text, slice(0, limit + 1))  # of a subclass too, and none itself
    if not cut.isprintable():
        cut = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", cut)
    raw = cut.encode(errors="backslashreplace")
    return raw.decode() if len(raw) <= limit else f"{raw[: limit - 3].decode(errors='ignore')}..."
