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
_MOST_ARGUMENTS = 20


class _Repr(reprlib.Repr):
    """As `reprlib.Repr`, which writes bytes whole."""

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:
        return self.repr_str(repr(x[: self.maxstring]), level)

    repr_bytearray = repr_bytes


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = 80
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HOLDING = (list, tuple, set, frozenset, dict)
#: Of exceptions whose text Python makes of their arguments.
_PLAIN = (BaseException.__str__, KeyError.__str__, OSError.__str__)
_args_of, _mro_of = BaseException.__dict__["args"].__get__, type.__dict__["__mro__"].__get__
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
        return bounded(str(value) if is_cheap(value) else ", ".join(map(shown, _args_of(value)[:_MOST_ARGUMENTS])))
    except BaseException:  # noqa: BLE001  # whatever its own `str` raises
        return "(its own text cannot be read)"


def is_cheap(value: Any) -> bool:
    """Whether `str` of a value takes no time that grows with what an exception was given; others than those: yes."""
    kind = type(value)
    if not issubclass(kind, BaseException):
        return True
    if next(vars(found)["__str__"] for found in _mro_of(kind) if "__str__" in vars(found)) not in _PLAIN:
        return True  # its own, which may say something short of something large
    arguments = _args_of(value)
    if len(arguments) == 1 and type(arguments[0]) is str and not issubclass(kind, KeyError):
        return True  # this is the text
    return len(arguments) <= _MOST_ARGUMENTS and all(map(_is_small, arguments))


def _is_small(argument: Any) -> bool:
    """Whether the `repr` of an exception's argument is short; that of an object of a user's class is that class's matter."""
    kind = type(argument)
    if kind in (str, bytes, bytearray):
        return len(argument) <= LONGEST
    if kind in _HOLDING:
        if len(argument) > _MOST_ARGUMENTS:
            return False
        within = [*argument, *argument.values()] if kind is dict else argument
        return all(type(each) not in _HOLDING and _is_small(each) for each in within)
    return True


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
