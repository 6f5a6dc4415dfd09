"""Estimates the encoded size of documents, to decide whether they are encoded in a thread beside the event loop.

Sizes are in bytes, or in the time that encoding a byte of text takes (a nanosecond). Nested values are visited level by
level until the limit is exceeded; of a long list of numbers only three items are visited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, RootModel

from jina_asgi.documents.writers import RawJson, Rendered

#: Documents of this size or more are large.
LARGE = 2**20
#: More documents than this are always large.
MANY = 256
#: Bytes of JSON for each byte of a tensor.
JSON = 4
#: The size of any value, and the additional size of one that holds others.
_VALUE, _HOLDER = 16, 48
#: Values nested this deep count as large.
_DEEPEST = 1024
#: A list of this length or more is first tried as a list of numbers.
_LONG = 32
_NUMBERS: frozenset[type] = frozenset({int, float, bool, type(None)})
_NOTHING, _LENGTH, _LIST, _OTHER_LIST, _DICT, _MODEL, _MODEL_WITH_EXTRA, _ROOT, _ARRAY, _RENDERED, _RAW_JSON = range(11)
_MAX_KINDS = 4096
#: For this many documents it is faster to measure all values together.
_MANY_AT_ONCE = 4
_fields = attrgetter("__dict__")
#: The fields of a value that is no document; writing it raises the error.
_NO_DOCUMENT: dict[str, Any] = {}


def are_large(docs: list[Any], factor: int = 1, *, copied: bool = True) -> bool:
    """Whether encoding these documents takes so long that other work must run meanwhile.

    Args:
        factor: encoded bytes for each byte of a tensor, such as `JSON`.
        copied: tensors in the documents' own fields are copied, and count too.
    """
    if len(docs) > MANY:
        return True
    if len(docs) >= _MANY_AT_ONCE and copied:
        return left([*list.__iter__(docs)], LARGE, factor) < 0
    room = LARGE
    for doc in list.__iter__(docs):
        fields = doc if isinstance(doc, dict) else getattr(doc, "__dict__", _NO_DOCUMENT)
        for value in fields.values():
            if type(value) is str:  # the most frequent kind
                room -= len(value)
                continue
            kind = _KINDS.get(type(value))
            if kind == _NOTHING:
                continue
            if kind == _LENGTH:
                room -= len(value)
            elif kind == _ARRAY:
                room -= _bytes(value) * factor if copied else 0
            elif kind != _LIST:
                room = left([value], room, factor)
            elif value:
                count = len(value)
                numbers = count >= _LONG and _are_numbers(value, count)
                room = room - _VALUE * count if numbers else left([value], room, factor)
        if room < 0:
            return True
    return False


def is_large(values: Any, room: int = LARGE, factor: int = 1) -> bool:
    """Whether a value, with all its nested values and keys, takes more than `room`."""
    return left([values] if isinstance(values, dict) else values, room, factor) < 0


def left(values: Iterable[Any], room: int, factor: int = 1) -> int:
    """Subtracts the size of values from `room`; negative if they exceed it."""
    level = values if isinstance(values, list | tuple) else [*values]
    depth = 0
    while level and room >= 0:
        depth += 1
        if depth > _DEEPEST:  # deeper than encoders write; it may hold itself
            return -1
        room -= _VALUE * len(level)
        kinds = set(map(type, level))
        below: list[Any] = []
        for kind in kinds:
            if (how := _KINDS.get(kind)) is None:
                how = _classify(kind)
            if how == _NOTHING:
                continue
            group = level if len(kinds) == 1 else [value for value in level if type(value) is kind]
            if how == _LENGTH:
                room -= sum(map(len, group))
            elif how == _ARRAY:
                room -= factor * sum(map(_bytes, group))
            else:
                room -= _HOLDER * len(group)
                if room >= 0:
                    room = _within(how, group, below, room)
            if room < 0:
                return room
        level = below
    return room


def _within(how: int, group: Iterable[Any], below: list[Any], room: int) -> int:
    """Appends the values within values of one kind; returns `room` without the size of the others."""
    if how == _LIST:
        for value in group:
            count = len(value)
            if count >= _LONG and _are_numbers(value, count):
                room -= _VALUE * count
            elif _VALUE * count > room:
                return -1
            else:
                below += list.__iter__(value)
                room -= count  # to add them takes time, too
    elif how in (_OTHER_LIST, _DICT):
        count = sum(map(len, group))
        if _VALUE * count > room:
            return -1
        if how == _DICT:
            room -= _keys(group)
            below += chain.from_iterable(map(dict.values, group))
        else:
            below += chain.from_iterable(group)
    elif how == _ROOT:
        below += [value.root for value in group]
    elif how == _RAW_JSON:
        room -= sum(len(value.json) for value in group)
    elif how == _RENDERED:
        room -= sum(len(value.json or b"") for value in group)
        below += chain.from_iterable(map(dict.values, group))
    else:
        below += chain.from_iterable(map(dict.values, map(_fields, group)))
        if how == _MODEL_WITH_EXTRA:
            below += [extra for value in group if (extra := value.__pydantic_extra__)]
    return room


def _are_numbers(values: list[Any], count: int) -> bool:
    """Whether a list holds numbers, judged by its first, middle and last item."""
    item = list.__getitem__
    return type(item(values, 0)) in _NUMBERS and {type(item(values, count // 2)), type(item(values, -1))} <= _NUMBERS


def _keys(group: Iterable[Any]) -> int:
    try:
        return sum(map(len, chain.from_iterable(map(dict.keys, group))))
    except TypeError:  # not all of them are texts
        return sum(len(key) for key in chain.from_iterable(map(dict.keys, group)) if isinstance(key, str))


def _bytes(value: Any) -> int:
    size = value.nbytes
    return size if isinstance(size, int) else 0


def _classify(kind: type) -> int:
    """How values of a class are measured; unknown objects count as small."""
    found = next((how for base, how in _BASES if issubclass(kind, base)), _NOTHING)
    if found == _NOTHING and hasattr(kind, "nbytes") and hasattr(kind, "dtype"):
        found = _ARRAY
    if found == _MODEL and kind.model_config.get("extra") == "allow":  # type: ignore[attr-defined]  # a BaseModel
        found = _MODEL_WITH_EXTRA
    if len(_KINDS) >= _MAX_KINDS:
        _KINDS.clear()
    _KINDS[kind] = found
    return found


_BASES: tuple[tuple[type, int], ...] = (
    (int, _NOTHING),
    (float, _NOTHING),
    (str, _LENGTH),
    (bytes, _LENGTH),
    (bytearray, _LENGTH),
    (memoryview, _LENGTH),
    (RawJson, _RAW_JSON),
    (Rendered, _RENDERED),
    (dict, _DICT),
    (list, _LIST),
    (tuple, _OTHER_LIST),
    (set, _OTHER_LIST),
    (frozenset, _OTHER_LIST),
    (deque, _OTHER_LIST),
    (RootModel, _ROOT),
    (BaseModel, _MODEL),
)
_KINDS: dict[type, int] = {str: _LENGTH, bytes: _LENGTH, list: _LIST, dict: _DICT} | dict.fromkeys(_NUMBERS, _NOTHING)
