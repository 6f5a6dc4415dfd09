"""Converts protobuf's messages to plain values, as parsed from JSON or msgpack: one dict for each document.

Unknown fields of a document are dropped, as in Jina. A large message is parsed in pieces, cut between items or entries:
protobuf keeps other threads waiting until it has parsed all of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from jina_asgi.documents import field_plans, pydantic_facts, tensors
from jina_asgi.protocols.protobuf.messages import DictOfAnyProto, DocListProto, DocProto, ListOfAnyProto, NodeProto
from jina_asgi.protocols.protobuf.size_guard import field_at
from jina_asgi.types import Field, Schema

_ANY = Field("", "json")
#: Bytes that are parsed in one call, and the levels of messages that are cut.
_PIECE, _DEEPEST = 2**17, 32
#: The tags of a node's content that holds nodes: of documents in a list, of a document, of a dictionary; and of lists.
_DOCS, _DOC, _DICT = 0x42, 0x3A, 0x62
_LISTS = {0x4A: "list", 0x52: "set", 0x5A: "tuple"}


class NodeReader:
    """Reads the documents of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._fields = {name: _fields_of(schema, name) for name in schema.documents}
        self._open = {name for name in schema.documents if field_plans.keeps_extra(schema, name)}

    def field(self, document: str | None, name: str) -> Field | None:
        """The plan of a field; None if the field is dropped."""
        if document is None:
            return _ANY
        return self._fields[document].get(name) or (_ANY if document in self._open else None)

    def read(self, raw: bytes, start: int, stop: int, field: Field, depth: int = 0) -> Any:
        """The value of the NodeProto between two places.

        Raises:
            DecodeError, IndexError, UnicodeDecodeError, InvalidRequest: it is broken. ValueError: a tensor's size is wrong.
        """
        tag, begin, end = field_at(raw, start) if stop - start > _PIECE and depth < _DEEPEST else (0, start, start)
        if tag in (_DOCS, _DOC, _DICT, *_LISTS) and NodeProto.FromString(raw[end:stop]).WhichOneof("content") is None:
            if tag == _DOCS:
                return [*self.documents(raw, begin, end, self._name_within(field), depth + 1)]
            if tag == _DOC:
                return self.read_document(raw, begin, end, field.doc if field.kind == "doc" else None, depth + 1)
            if tag == _DICT:
                item = _item(field)
                return self._mapping(DictOfAnyProto, raw, begin, end, lambda _: item, depth + 1)
            parts = [*_parts(raw, begin, end)]
            if field.kind != "tuple" or sum(items or 1 for *_, items in parts) != len(field.items):
                return _of_kind(_LISTS[tag], self._listed(raw, parts, _item(field), depth + 1))
        return self.value(NodeProto.FromString(raw[start:stop]), field)

    def documents(
        self, raw: bytes, start: int, stop: int, name: str | None, depth: int = 0
    ) -> Iterator[dict[str, Any]]:
        """The documents of the DocListProto between two places; raises as `read` does."""
        for begin, end, items in _parts(raw, start, stop):
            if items:
                yield from (self.document(doc, name) for doc in DocListProto.FromString(raw[begin:end]).docs)
            else:
                yield self.read_document(raw, *field_at(raw, begin)[1:], name, depth)

    def read_document(self, raw: bytes, start: int, stop: int, name: str | None, depth: int = 0) -> dict[str, Any]:
        """The fields of the DocProto between two places, as `document` has them; raises as `read` does."""
        return self._mapping(DocProto, raw, start, stop, partial(self.field, name), depth)

    def _listed(self, raw: bytes, parts: Iterable[tuple[int, int, int]], item: Field, depth: int) -> list[Any]:
        made = list[Any]()
        for begin, end, items in parts:
            if items:
                made += [self.value(node, item) for node in ListOfAnyProto.FromString(raw[begin:end]).data]
            else:
                made.append(self.read(raw, *field_at(raw, begin)[1:], item, depth))
        return made

    def _mapping(
        self, kind: Any, raw: bytes, start: int, stop: int, plan: Callable[[str], Field | None], depth: int
    ) -> dict[str, Any]:
        """The values in the mapping of a message of a kind, by their plans."""
        made = dict[str, Any]()
        for begin, end, items in _parts(raw, start, stop):
            entry = None if items else _entry(raw, *field_at(raw, begin)[1:])
            if entry is None:
                found = ((key, node, plan(key)) for key, node in kind.FromString(raw[begin:end]).data.items())
                made |= {key: self.value(node, field) for key, node, field in found if field is not None}
            elif (field := plan(entry[0])) is not None:
                made[entry[0]] = self.read(raw, *entry[1:], field, depth)
        return made

    def document(self, message: Any, name: str | None) -> dict[str, Any]:
        """The fields of a DocProto of a class of the schema; without a class, all fields.

        Raises:
            ValueError: a tensor's size is wrong.
        """
        found = ((key, node, self.field(name, key)) for key, node in message.data.items())
        return {key: self.value(node, field) for key, node, field in found if field is not None}

    def value(self, node: Any, field: Field) -> Any:
        """The value of a NodeProto; raises as `document` does."""
        content = node.WhichOneof("content")
        if content is None:
            return None
        value = getattr(node, content)
        if content == "ndarray":
            return _array(value.dense)
        if content == "doc":
            return self.document(value, field.doc if field.kind == "doc" else None)
        if content == "doc_array":
            name = self._name_within(field)
            return [self.document(doc, name) for doc in value.docs]
        if content in ("list", "tuple", "set"):
            return self._items(content, value.data, field)
        if content == "dict":
            item = _item(field)
            return {key: self.value(inner, item) for key, inner in value.data.items()}
        return value

    def _items(self, content: str, nodes: Iterable[Any], field: Field) -> Any:
        if field.kind == "tuple" and len(field.items) == len(list(nodes)):
            made = [self.value(node, item) for node, item in zip(nodes, field.items, strict=True)]
        else:
            item = _item(field)
            made = [self.value(node, item) for node in nodes]
        return _of_kind(content, made)

    @staticmethod
    def _name_within(field: Field) -> str | None:
        """The class of the documents in a field."""
        return field.doc if field.kind == "docs" else _item(field).doc


def _of_kind(content: str, items: list[Any]) -> Any:
    if content == "list":
        return items
    try:
        return tuple(items) if content == "tuple" else set(items)
    except TypeError:  # items without a hash, such as dicts: left to pydantic
        return items


def _parts(raw: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Cuts a message that holds items: yields starts, ends, and the number of fields; 0 for an item of over a piece."""
    if stop - at <= _PIECE:
        if stop > at:
            yield at, stop, 1
        return
    start, items = at, 0
    while at < stop:
        tag, size = raw[at], raw[at + 1]
        if tag == 0x0A and size < 128:
            end = at + 2 + size
        else:
            tag, _, end = field_at(raw, at)
        if end > stop:
            raise IndexError(end)
        if end - at > _PIECE and tag == 0x0A:
            if items:
                yield start, at, items
            yield at, end, 0
            start, items = end, 0
        else:
            items += 1
            if end - start >= _PIECE:
                yield start, end, items
                start, items = end, 0
        at = end
    if items:
        yield start, at, items


def _entry(raw: bytes, start: int, stop: int) -> tuple[str, int, int] | None:
    """The key and the bounds of the node of an entry; None if it is not encoded as protobuf's own writers do."""
    tag, begin, end = field_at(raw, start)
    if tag != 0x0A or end >= stop:
        return None
    node = field_at(raw, end)
    return (raw[begin:end].decode(), *node[1:]) if node[0] == 0x12 and node[2] == stop else None


def _item(field: Field) -> Field:
    """The plan of the items of a list, a set or a dict."""
    return field.items[-1] if field.kind in ("list", "set", "dict") and field.items else _ANY


def _array(dense: Any) -> Any:
    buffer = dense.buffer
    return tensors.of_named(dense.dtype, dense.shape, len(buffer))(buffer, 0, len(buffer))


def _fields_of(schema: Schema, name: str) -> dict[str, Field]:
    model = schema.models.get(name)
    plan = schema.documents[name]
    if model is None:
        return {field.name: field for field in plan}
    return {accepted: field for field in plan for accepted in pydantic_facts.accepted_names(model, field.name)}
