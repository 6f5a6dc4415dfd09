"""A value as an error's message shows it: short, however long it is. Pure."""

from __future__ import annotations

import reprlib
from typing import Any

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: Any) -> str:
    """`repr`, with the middle of what is long left out."""
    return _REPR.repr(value)
