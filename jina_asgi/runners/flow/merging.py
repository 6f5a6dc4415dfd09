"""Documents between nodes: chosen, copied at a fork, fitted to the next node's class, merged where branches join.

Merging is Jina's: a document of a known id is updated (what is set wins, lists are appended), others are appended.
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
    """The typed documents in a plain list: a DocList's own iterator takes four times as long."""
    return [*list.__iter__(docs.typed)]


def select(docs: Docs, positions: Sequence[int]) -> Docs:
    """Those of the documents at these positions."""
    codec: Codec = docs.codec
    if not docs.is_typed:
        buffers = docs.encoded
        return codec.encoded([buffers[position] for position in positions])
    typed = rows(docs)
    return codec.docs(codec.wrap([typed[position] for position in positions]))


def matching(docs: Docs, holds: Callable[[Any], bool]) -> Docs:
    """Those of the documents that a predicate is true of."""
    typed = rows(docs)
    positions = [position for position, doc in enumerate(typed) if holds(doc)]
    return docs if len(positions) == len(typed) else select(docs, positions)


def copy_docs(docs: Docs) -> Docs:
    """The documents anew, down to their tensors; buffers are not changed by anybody and are shared."""
    codec: Codec = docs.codec
    if not docs.is_typed:
        return codec.encoded(docs.encoded)
    return codec.docs(codec.wrap([_copy_value(doc, {}) for doc in rows(docs)]))


def _copy_value(value: Any, seen: dict[int, Any]) -> Any:
    """A value anew; `seen` has the documents that were copied already. `deepcopy` would write a DocList as protobuf."""
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
    """Documents in a list of the class of another: docarray's own, which need not look at them again, or a plain one."""
    made: Any = type(like)
    return made(docs, False) if hasattr(like, "doc_type") else docs


def identified(docs: Docs) -> Docs:
    """The documents with ids: where their class is not at hand, each branch would otherwise give them one of its own."""
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
    """The documents as objects of the class that `taker` takes; the same ones, where they are.

    Raises:
        ExecutorError: they are not what it takes.
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
    """The documents of a branch as those of the first one.

    Raises:
        ExecutorError: no document of theirs is one of the other class.
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
    """Where the documents do not fit, of what is wrong with them the first."""
    if not isinstance(error, InvalidDocs) or not error.errors:
        return str(error)
    entry = error.errors[0]
    place = ".".join(str(part) for part in entry.get("loc", ()))
    return f"{place}: {entry.get('msg')}"


def concatenated(parts: Sequence[tuple[str, Docs]]) -> Docs:
    """The documents of all parts, one after another."""
    codec: Codec = parts[0][1].codec
    return codec.docs(codec.wrap([doc for _, docs in parts for doc in rows(docs)]))


def merged(parts: Sequence[tuple[str, Docs]], node: str, *, paired: bool = False) -> Docs:
    """What (name, documents) of several branches become where they join; the first part is changed in place.

    Documents are one where their ids are, or their positions: with `paired`, and where any has no id.

    Raises:
        ExecutorError: by position, and not as many on both sides.
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
    """A document's id, None where it has none."""
    return doc.get("id") if isinstance(doc, Mapping) else getattr(doc, "id", None)


def _update(ours: Any, theirs: Any, schema: Schema, document: str) -> None:
    """What is set in one document becomes the other's: lists are appended, sets, dicts and documents merged."""
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
