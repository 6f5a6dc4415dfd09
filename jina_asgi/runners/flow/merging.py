"""Documents between nodes: selected, copied at a fork, converted to the next node's class, merged at a join.

Merging is Jina's: a document with a known id is updated (fields that are set win, lists are appended), others are
appended.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from jina_asgi.documents.codec import Codec
from jina_asgi.errors import ExecutorError, InvalidDocs
from jina_asgi.types import Docs, Field, Schema

_ATOMS = (str, int, float, bool, bytes, type(None))


def rows(docs: Docs) -> list[Any]:
    """Return the typed documents as a plain list: a DocList's own iterator takes four times as long."""
    return [*list.__iter__(docs.typed)]


def select(docs: Docs, positions: Sequence[int]) -> Docs:
    """Return the documents at these positions."""
    codec: Codec = docs.codec
    if not docs.is_typed:
        buffers = docs.encoded
        return codec.encoded([buffers[position] for position in positions])
    typed = rows(docs)
    return codec.docs(codec.wrap([typed[position] for position in positions]))


def matching(docs: Docs, holds: Callable[[Any], bool]) -> Docs:
    """Return the documents for which a predicate is true."""
    typed = rows(docs)
    positions = [position for position, doc in enumerate(typed) if holds(doc)]
    return docs if len(positions) == len(typed) else select(docs, positions)


def copy_docs(docs: Docs) -> Docs:
    """Copy documents deeply, tensors included; encoded buffers are immutable and are shared."""
    codec: Codec = docs.codec
    if not docs.is_typed:
        return codec.encoded(docs.encoded)
    return codec.docs(codec.wrap([_copy_value(doc, {}) for doc in rows(docs)]))


def _copy_value(value: Any, seen: dict[int, Any]) -> Any:
    """Copy a value; `seen` has the documents copied already. `deepcopy` would encode a DocList as protobuf."""
    if isinstance(value, _ATOMS):
        return value
    if isinstance(value, BaseModel):
        return seen.get(id(value)) or _copy_document(value, seen)
    if isinstance(value, dict):
        return {key: _copy_value(item, seen) for key, item in value.items()}
    if type(value) in (list, set, tuple):
        return type(value)(_copy_value(item, seen) for item in value)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list) and hasattr(value, "doc_type"):
        return _listed(value, [_copy_value(item, seen) for item in list.__iter__(value)])
    return copy.deepcopy(value)


def _copy_document(doc: BaseModel, seen: dict[int, Any]) -> BaseModel:
    if doc.__pydantic_private__:
        return copy.deepcopy(doc)
    twin = seen[id(doc)] = copy.copy(doc)
    values = vars(twin)
    for name, value in values.items():
        if not isinstance(value, _ATOMS):
            values[name] = _copy_value(value, seen)
    if extra := twin.__pydantic_extra__:
        extra.update(_copy_value(extra, seen))
    return twin


def _listed(like: list[Any], docs: list[Any]) -> list[Any]:
    """Return documents in a list of the same class as another, without validating them again."""
    made: Any = type(like)
    return made(docs, False) if hasattr(like, "doc_type") else docs


def identified(docs: Docs) -> Docs:
    """Give ids to documents without one if their class is not at hand: else each branch would draw its own."""
    codec: Codec = docs.codec
    if codec.model is not None or not any(field.name == "id" and field.tag == "id" for field in codec.schema.fields):
        return docs
    if not any(isinstance(doc, dict) and doc.get("id") is None for doc in docs.typed):
        return docs
    made = [
        {**doc, "id": os.urandom(16).hex()} if isinstance(doc, dict) and doc.get("id") is None else doc
        for doc in docs.typed
    ]
    return codec.docs(made)


def converted(docs: Docs, wanted: Codec, giver: str, taker: str) -> Docs:
    """Return documents converted to the class that `taker` takes; the same ones if they have it already.

    Raises:
        ExecutorError: they do not fit the class.
    """
    if wanted.model is None or docs.codec is wanted or docs.codec.model is wanted.model:
        return docs
    try:
        return wanted.docs(wanted.decode(docs.encoded))
    except InvalidDocs as error:
        raise ExecutorError(
            f"{taker!r} does not take what {giver!r} gave: expected documents of {wanted.schema.name}, got"
            f" {docs.codec.schema.name}: {_first_mistake(error)}",
            executor=giver,
        ) from error


def _alike(docs: Docs, left: Docs, name: str, first: str, node: str) -> Docs:
    """Convert a branch's documents to the class of the first branch's.

    Raises:
        ExecutorError: they do not fit that class.
    """
    try:
        return converted(docs, left.codec, name, node)
    except ExecutorError as error:
        raise ExecutorError(
            f"{node!r} merges what {first!r} and {name!r} gave, and the documents of {docs.codec.schema.name} from"
            f" {name!r} are none of {left.codec.schema.name}, which {first!r} gave: {_first_mistake(error.__cause__)}",
            executor=name,
        ) from error.__cause__


def _first_mistake(error: BaseException | None) -> str:
    """Return the place and message of the first validation error."""
    if not isinstance(error, InvalidDocs) or not error.errors:
        return str(error)
    entry = error.errors[0]
    place = ".".join(str(part) for part in entry.get("loc", ()))
    return f"{place}: {entry.get('msg')}"


def concatenated(parts: Sequence[tuple[str, Docs]]) -> Docs:
    """Concatenate the documents of all parts."""
    codec: Codec = parts[0][1].codec
    return codec.docs(codec.wrap([doc for _, docs in parts for doc in rows(docs)]))


def merged(parts: Sequence[tuple[str, Docs]], node: str, *, paired: bool = False) -> Docs:
    """Merge the (name, documents) of several branches at a join; changes the first part in place.

    Documents match by id; by position with `paired`, or if any has no id.

    Raises:
        ExecutorError: matched by position, and the numbers differ.
    """
    (first, left), *others = parts
    codec: Codec = left.codec
    docs = rows(left)
    given = [(name, rows(_alike(other, left, name, first, node))) for name, other in others]
    by_id = not paired and all(id_of(doc) is not None for part in (docs, *(part for _, part in given)) for doc in part)
    for name, part in given:
        if by_id:
            _merge_by_id(docs, part, codec.schema, codec.schema.name)
            continue
        if len(part) != len(docs):
            raise ExecutorError(
                f"{node!r} joins documents by their positions: expected as many from {first!r} as from {name!r}, got"
                f" {len(docs)} and {len(part)}",
                executor=node,
            )
        for ours, theirs in zip(docs, part, strict=True):
            _update(ours, theirs, codec.schema, codec.schema.name)
    return codec.docs(codec.wrap(docs))


def _merge_by_id(docs: list[Any], part: Sequence[Any], schema: Schema, document: str) -> None:
    known = {id_of(doc): doc for doc in docs}
    for doc in part:
        if (ours := known.get(id_of(doc))) is not None:
            _update(ours, doc, schema, document)
        else:
            docs.append(doc)
            known[id_of(doc)] = doc


def id_of(doc: Any) -> Any:
    """Return a document's id; None if it has none."""
    return doc.get("id") if isinstance(doc, Mapping) else getattr(doc, "id", None)


def _update(ours: Any, theirs: Any, schema: Schema, document: str) -> None:
    """Update one document with the fields set in another: lists are appended, sets, dicts and documents merged."""
    if ours is theirs:
        return
    left, right = (doc if isinstance(doc, dict) else vars(doc) for doc in (ours, theirs))
    fields = schema.documents[document]
    model = schema.models.get(document)
    names = [field.name for field in fields] if model is None or isinstance(ours, dict) else list(model.model_fields)
    changed = set()
    for name, field in zip(names, fields, strict=True):
        if (new := right.get(name)) is not None:
            left[name] = _joined(left.get(name), new, field, schema)
            changed.add(name)
    if not isinstance(ours, dict):
        ours.__pydantic_fields_set__.update(changed)


def _joined(old: Any, new: Any, field: Field, schema: Schema) -> Any:
    if old is None:
        return new
    if field.kind == "doc" and field.doc is not None:
        _update(old, new, schema, field.doc)
        return old
    if field.kind == "list":
        return [*old, *new]
    if field.kind == "set":
        return old | new
    if field.kind == "dict":
        return {**old, **new}
    if field.kind == "docs" and field.doc is not None:
        docs = [*list.__iter__(old)]
        _merge_by_id(docs, [*list.__iter__(new)], schema, field.doc)
        return _listed(old, docs)
    return new
