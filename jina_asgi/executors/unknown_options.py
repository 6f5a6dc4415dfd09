"""Logs the options that end up in an Executor's `**kwargs`, with the nearest known one."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from weakref import WeakKeyDictionary

logger = logging.getLogger("jina_asgi")

#: The options of each class that the log has named.
_warned: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()


def warn_of_unknown(cls: type, given: Iterable[str], *, base: type, near_only: bool = False) -> None:
    """Warn, once a process, of each option that no `__init__` of a class takes by name and none of its methods mentions.

    Args:
        cls: the class of the Executor.
        given: the names of options that nothing has taken by name.
        base: Executor, whose own names are no user's.
        near_only: only of those that are almost a known one: the others may have gone elsewhere, such as to a model.
    """
    owners = cls.__mro__[: cls.__mro__.index(base)]
    known = {name for owner in owners for name in _parameters(vars(owner).get("__init__"))}
    warned = _warned.setdefault(cls, set())
    for name in given:
        if name in known or name in warned or name in _mentioned(owners):
            continue
        near = difflib.get_close_matches(name, known, 1)
        if near or not near_only:
            warned.add(name)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
            logger.warning("%s.__init__ has no parameter %r, which **kwargs takes; %s", cls.__name__, name, hint)


def _parameters(function: object) -> Iterator[str]:
    if isinstance(function, FunctionType):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        yield from (one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL))


def _mentioned(owners: Iterable[type]) -> set[str]:
    """The texts in the code of classes, such as "size" in `kwargs.get("size")`."""
    functions = [value for owner in owners for value in vars(owner).values() if isinstance(value, FunctionType)]
    return {text for function in functions for text in _texts(function.__code__)}


def _texts(code: CodeType) -> Iterator[str]:
    for value in code.co_consts:
        if isinstance(value, str):
            yield value
        elif isinstance(value, CodeType):
            yield from _texts(value)
