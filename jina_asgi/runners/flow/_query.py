"""The language of `when`: a MongoDB-like query, compiled once to a predicate over one document.

    {"tags__lang": {"$eq": "en"}}        {"$or": [{"price": {"$lt": 5}}, {"stock": {"$exists": False}}]}

A missing field, and a comparison that its types do not support, do not match; `$not` inverts that.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jina_asgi.errors import DefinitionError
from jina_asgi.runners.flow._graph import nearest

Predicate = Callable[[Any], bool]
#: Returns the value of a field of a document, or `MISSING`.
Look = Callable[[Any], Any]

MISSING: Any = object()
_PLACEHOLDER = re.compile(r"\{\s*([A-Za-z0-9_]+)\s*\}")


def compiled(query: Mapping[str, Any] | str) -> Predicate:
    """Compile a query to a predicate over one document.

    Args:
        query: the query, or its JSON.

    Raises:
        DefinitionError: the query is invalid; the message names the wrong operator and the nearest one.
    """
    if isinstance(query, str):
        try:
            query = json.loads(query)
        except ValueError as error:
            raise DefinitionError(f"when={query!r}: expected a query, or its JSON: {error}") from None
    if not query:
        raise DefinitionError(f"when={query!r}: expected a query such as {{'tags__lang': {{'$eq': 'en'}}}}")
    return _query(query)


def _query(query: Any) -> Predicate:
    """Compile a query: fields, and operators that join queries."""
    if not isinstance(query, Mapping):
        raise DefinitionError(f"when: expected a mapping such as {{'field': {{'$eq': 1}}}}, got {query!r}")
    parts: list[Predicate] = []
    for key, value in query.items():
        if key in _JOINS:
            parts.append(_JOINS[key]([_query(item) for item in _listed(value)]))
        elif str(key).startswith("$"):
            raise DefinitionError(f"when: {key!r} stands where a field is expected; {nearest(str(key), _JOINS)}")
        else:
            parts.append(_field(_look(str(key)), value, str(key)))
    return _all(parts)


def _field(look: Look, asked: Any, name: str) -> Predicate:
    """Compile the operators of one field."""
    if not isinstance(asked, Mapping) or not asked:
        raise DefinitionError(f"when: {name!r}: expected an operator and a value such as {{'$eq': 1}}, got {asked!r}")
    parts: list[Predicate] = []
    for key, value in asked.items():
        if key in _JOINS:
            parts.append(_JOINS[key]([_field(look, item, name) for item in _listed(value)]))
        elif key in _OPERATORS:
            parts.append(_operator(look, str(key), value, name))
        else:
            known = [*_OPERATORS, *_JOINS]
            raise DefinitionError(f"when: {name!r} has no operator {key!r}; {nearest(str(key), known)}")
    return _all(parts)


def _listed(value: Any) -> list[Any]:
    """Return the joined queries: those of a list, or one for each entry of a mapping."""
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not listed:
        raise DefinitionError("when: expected queries to join, got an empty list")
    if len(listed) == 1 and isinstance(listed[0], Mapping):
        return [{key: item} for key, item in listed[0].items()] or listed
    return listed


def _operator(look: Look, key: str, value: Any, name: str) -> Predicate:
    if isinstance(value, str) and (found := _PLACEHOLDER.fullmatch(value)) and key != "$regex":
        other, compare = _look(found[1]), _OPERATORS[key]
        return lambda doc: _holds(compare, look(doc), other(doc))
    wanted, expected = _EXPECTED.get(key, (object, ""))
    if not isinstance(value, wanted) or (key in ("$in", "$nin") and isinstance(value, str)):
        raise DefinitionError(f"when: {name!r}: {key} takes {expected}, got {value!r}")
    if key == "$exists":
        return lambda doc: (look(doc) is not MISSING) is value
    if key == "$regex":
        return _regex(look, value, name)
    compare = _OPERATORS[key]
    return lambda doc: _holds(compare, look(doc), value)


def _holds(compare: Callable[[Any, Any], Any], found: Any, value: Any) -> bool:
    if found is MISSING or value is MISSING:
        return False
    try:
        return bool(compare(found, value))
    except (TypeError, ValueError):  # types that cannot be compared: a text with a number, a tensor's truth value
        return False


def _regex(look: Look, value: str, name: str) -> Predicate:
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise DefinitionError(f"when: {name!r}: {value!r} is not a regular expression: {error}") from None

    def matches(doc: Any) -> bool:
        found = look(doc)
        return isinstance(found, str) and pattern.search(found) is not None

    return matches


def _look(name: str) -> Look:
    """Return a function that looks up a field: `a__b` is the item `b` of `a`, and `a__0` its first."""
    path = name.split("__")

    def look(doc: Any) -> Any:
        found = doc
        for step in path:
            try:
                if isinstance(found, Mapping):
                    found = found[step if step in found or not step.isdigit() else int(step)]
                elif isinstance(found, Sequence) and not isinstance(found, str | bytes) and step.isdigit():
                    found = found[int(step)]
                else:
                    found = getattr(found, step)
            except (AttributeError, KeyError, IndexError):
                return MISSING
        return found

    return look


def _all(parts: Sequence[Predicate]) -> Predicate:
    if len(parts) == 1:
        return parts[0]
    return lambda doc: all(part(doc) for part in parts)


def _any(parts: Sequence[Predicate]) -> Predicate:
    return lambda doc: any(part(doc) for part in parts)


def _none(parts: Sequence[Predicate]) -> Predicate:
    every = _all(parts)
    return lambda doc: not every(doc)


_JOINS: Mapping[str, Callable[[Sequence[Predicate]], Predicate]] = {"$and": _all, "$or": _any, "$not": _none}
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$neq": operator.ne,  # as docarray spells it
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$in": lambda found, value: found in value,
    "$nin": lambda found, value: found not in value,
    "$regex": lambda found, value: False,
    "$exists": lambda found, value: False,
    "$size": lambda found, value: len(found) == value,
}
_EXPECTED: Mapping[str, tuple[Any, str]] = {
    "$in": ((list, tuple, set, frozenset), "a list"),
    "$nin": ((list, tuple, set, frozenset), "a list"),
    "$regex": (str, "a regular expression"),
    "$exists": (bool, "True or False"),
    "$size": (int, "a number"),
}
