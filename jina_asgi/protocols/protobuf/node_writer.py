"""Writes documents as protobuf by hand: the bytes before a value are made once for each length, and all are joined at last.

protobuf's own messages take as long for one text, and three times as long for 64 vectors (tests/benchmarks/bench_codecs.py).

The bytes are as from docarray's own messages, except for the order of the fields, which is the class's.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice, repeat
from operator import add
from typing import Any

import numpy as np
from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

from jina_asgi.documents import tensors
from jina_asgi.documents.writers import Writer, plain, revealed
from jina_asgi.types import Field, Schema

Buffer = Any  # bytes or an array; Python has a type for buffers from 3.12 on
#: The buffers of a column, one for each document, and their total size.
Column = tuple[list[Iterable[Buffer]], list[int] | int]
_ANY = Field("", "json")
_INT32, _MAX_HEADS = 1 << 31, 4096
#: Values that are joined, or documents that are written, in one call that holds the GIL; bytes that are copied so.
_MANY, _LARGE = 2**12, 2**20
_LISTS = {list: b"\x4a", deque: b"\x4a", set: b"\x52", frozenset: b"\x52", tuple: b"\x5a"}
_float = struct.Struct("<d").pack


class NodeWriter:
    """Writes the documents of one schema; `reveals`: without hiding secrets."""

    def __init__(self, schema: Schema, *, reveals: bool = False) -> None:
        self._plain = revealed if reveals else plain
        self._fields = {name: {field.name: field for field in plan} for name, plan in schema.documents.items()}
        self._names = {model: name for name, model in schema.models.items()}
        self._values = Writer(schema.models).values
        self._heads: dict[tuple[str, bytes, bytes], _Heads] = {}
        self._around: dict[tuple[Any, ...], tuple[bytes, bytes, int]] = {}
        self._texts: dict[tuple[str, type, str | None], tuple[_Heads, bytes]] = {}
        #: The documents with tensors among their own fields.
        self.with_tensors = {
            name for name, plan in schema.documents.items() if any(field.kind == "tensor" for field in plan)
        }

    def documents(self, docs: Sequence[Any], name: str | None) -> tuple[list[Buffer], int]:
        """The buffers of a DocListProto, and their total size.

        Raises:
            ValueError: a value cannot be written (an integer over 32 bits, a tensor of objects).
        """
        if len(docs) == 1 and name not in self.with_tensors:
            (doc,) = docs  # a DocList runs Python code for an index
            return self.single(doc, name)
        if len(docs) > _MANY:
            return self._in_parts(docs, name)
        fields = self._fields.get(name or "", {})
        rows = [self._values(doc) for doc in docs]
        if not rows:
            return [], 0
        names = list(rows[0])
        count = len(names)
        if any(len(row) != count for row in rows):
            return self._each(docs, name)
        try:
            columns = [(key, [row[key] for row in rows]) for key in names]
        except KeyError:
            return self._each(docs, name)
        pieces: list[Iterable[Buffer]] = []
        fixed, sizes = 0, None
        for key, column in columns:
            parts, size = self._column(key, fields.get(key, _ANY), column)
            pieces += parts
            if isinstance(size, int):
                fixed += size
            else:
                sizes = size if sizes is None else list(map(add, sizes, size))
        lengths = [fixed] * len(rows) if sizes is None else [fixed + size for size in sizes]
        heads = [_LIST[length] for length in lengths]
        return list(chain.from_iterable(zip(heads, *pieces, strict=False))), sum(map(len, heads)) + sum(lengths)

    def _in_parts(self, docs: Sequence[Any], name: str | None) -> tuple[list[Buffer], int]:
        """As `documents`, for so many that other threads are to run meanwhile."""
        left, parts = iter(docs), list[Buffer]()
        while part := list(islice(left, _MANY)):
            parts.append(b"".join(self.documents(part, name)[0]))
        return parts, sum(map(len, parts))

    def _each(self, docs: Sequence[Any], name: str | None) -> tuple[list[Buffer], int]:
        """As `documents`, for documents with different fields."""
        parts = [self.documents([doc], name) for doc in docs]
        return [buffer for buffers, _ in parts for buffer in buffers], sum(size for _, size in parts)

    def single(self, doc: Any, name: str | None) -> tuple[list[Buffer], int]:
        """As `documents`, for one without tensors, for which columns cost more than they save."""
        fields = self._fields.get(name or "", {})
        found: list[Buffer] = [b""]
        for key, value in self._values(doc).items():
            field = fields.get(key, _ANY)
            if isinstance(value, str):
                heads, tail = self._texts.get((key, type(value), field.tag)) or self._text(key, type(value), field)
                content = str.encode(value)
                found += heads[len(content)], content, tail
            else:
                content = self.value(value, field)
                found += self._heads_of(key, b"", b"")[len(content)], content
        size = sum(map(len, found))
        found[0] = head = _LIST[size]
        return found, len(head) + size

    def _text(self, key: str, kind: type, field: Field) -> tuple[_Heads, bytes]:
        """The bytes before and after a text of a field; cached."""
        tail = _tail(kind, field)
        if len(self._texts) >= _MAX_HEADS:
            self._texts.clear()
        found = self._texts[key, kind, field.tag] = self._heads_of(key, b"\x0a", tail), tail
        return found

    def document(self, doc: Any, name: str | None) -> bytes:
        """Writes a DocProto; raises as `documents` does."""
        return b"".join(self.documents([doc], name)[0][1:])

    def _column(self, key: str, field: Field, column: list[Any]) -> Column:
        """The encoded values of one field of several documents."""
        kinds = set(map(type, column))
        kind = kinds.pop()
        if not kinds:
            if issubclass(kind, str):
                return self._sized(key, b"\x0a", _tail(kind, field), list(map(str.encode, column)))
            if issubclass(kind, bytes):
                return self._sized(key, b"\x2a", _tail(kind, field), column)
            if issubclass(kind, np.ndarray):
                return self._tensors(key, field, column, kind)
        value = self.value
        return self._sized(key, b"", b"", [value(item, field) for item in column])

    def _sized(self, key: str, tag: bytes, tail: bytes, column: list[bytes]) -> Column:
        """Values of different lengths, after a tag (b"": whole nodes)."""
        heads = self._heads_of(key, tag, tail)
        lengths = list(map(len, column))
        before = [heads[length] for length in lengths]
        sizes = list(map(add, map(len, before), lengths))
        if not tail:
            return [before, column], sizes
        return [before, column, repeat(tail)], [size + len(tail) for size in sizes]

    def _tensors(self, key: str, field: Field, column: list[Any], kind: type) -> Column:
        names, arrays = zip(*map(tensors.named, column), strict=True)
        first = arrays[0]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1 or len(set(names)) > 1:
            tail = _tail(kind, field, "ndarray")
            return self._sized(key, b"", b"", [_tensor(name, a, tail) for name, a in zip(names, arrays, strict=True)])
        known = key, field.tag, kind, names[0], first.shape
        around = self._around.get(known)
        if around is None:
            before, after = _around(names[0], first.shape, first.nbytes)
            after += _tail(kind, field, "ndarray")
            before = self._heads_of(key, b"", b"")[len(before) + first.nbytes + len(after)] + before
            if len(self._around) >= _MAX_HEADS:
                self._around.clear()
            around = self._around[known] = before, after, len(before) + first.nbytes + len(after)
        before, after, size = around
        return [repeat(before), arrays, repeat(after)], size

    def _heads_of(self, key: str, tag: bytes, tail: bytes) -> _Heads:
        found = self._heads.get((key, tag, tail))
        if found is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            found = self._heads[key, tag, tail] = _Heads(key, tag, len(tail))
        return found

    def value(self, value: Any, field: Field) -> bytes:
        """Writes a NodeProto; raises as `documents` does."""
        kind = type(value)
        if value is None:
            return b""
        if isinstance(value, str):
            text = str.encode(value)
            return b"\x0a" + varint(len(text)) + text + _tail(kind, field)
        if isinstance(value, bool):
            return b"\x20\x01" if value else b"\x20\x00"
        if isinstance(value, int):
            return b"\x10" + _integer(int(value))
        if isinstance(value, float):
            return b"\x19" + _float(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return b"\x2a" + varint(len(value)) + bytes(value) + _tail(kind, field)
        return self._composed(value, kind, field)

    def _composed(self, value: Any, kind: type, field: Field) -> bytes:
        """Writes the NodeProto of a value that holds others."""
        if isinstance(value, BaseModel) and not isinstance(value, RootModel):
            return framed(b"\x3a", self.document(value, self._names.get(kind, field.doc)))
        if isinstance(value, dict):
            if field.kind == "doc":
                return framed(b"\x3a", self.document(value, field.doc))
            return framed(b"\x62", self._mapping(value, field))
        array = tensors.from_tensor(value)
        if array is not None:
            return _tensor(
                *tensors.named(array), _tail(kind, field, "ndarray" if kind is np.ndarray else "torch_tensor")
            )
        if field.kind == "docs" and isinstance(value, list):
            return framed(b"\x42", b"".join(self.documents(value, field.doc)[0]))
        tag = next((_LISTS[base] for base in kind.__mro__ if base in _LISTS), None)
        if tag is None:
            return self._other(value, field)
        plans = field.items if field.kind == "tuple" and len(field.items) == len(value) else repeat(_item(field))
        pairs, parts = zip(value, plans, strict=False), list[bytes]()
        while nodes := [self.value(item, plan) for item, plan in islice(pairs, _MANY)]:
            parts.append(b"".join([b"\x0a" + varint(len(node)) + node for node in nodes]))
        return framed(tag, b"".join(parts))

    def _mapping(self, value: Mapping[Any, Any], field: Field) -> bytes:
        """Writes the entries of a DictOfAnyProto."""
        item, entries, parts = _item(field), list[bytes](), list[bytes]()
        for key, inner in value.items():
            text = key if isinstance(key, str) else next(iter(to_jsonable_python({key: None})))  # as in JSON
            name, node = text.encode(), self.value(inner, item)
            entry = framed(b"\x0a", name) + framed(b"\x12", node)
            entries.append(framed(b"\x0a", entry))
            if len(entries) == _MANY:
                parts.append(b"".join(entries))
                entries = []
        return b"".join([*parts, *entries])

    def _other(self, value: Any, field: Field) -> bytes:
        """Converts numpy's numbers, and other values with pydantic."""
        if isinstance(value, np.generic):
            return self.value(value.item(), field)
        if isinstance(value, RootModel):
            return self.value(value.root, _ANY)
        return self.value(self._plain(value), _ANY)


class _Heads(dict[int, bytes]):
    """The bytes before the values of one field, by their length."""

    def __init__(self, key: str, tag: bytes, tail: int) -> None:
        super().__init__()
        self._key, self._tag, self._tail = framed(b"\x0a", key.encode()) + b"\x12", tag, tail

    def __missing__(self, length: int) -> bytes:
        value = self._tag + varint(length) if self._tag else b""
        node = len(value) + length + self._tail
        head = self._key + varint(node) + value
        made = b"\x0a" + varint(len(head) + length + self._tail) + head
        if len(self) < _MAX_HEADS:
            self[length] = made
        return made


class _Lengths(dict[int, bytes]):
    """The bytes before each document of a list, by its length."""

    def __missing__(self, length: int) -> bytes:
        made = b"\x0a" + varint(length)
        if len(self) < _MAX_HEADS:
            self[length] = made
        return made


_LIST = _Lengths()


class _Varints(dict[int, bytes]):
    """Encoded numbers, cached: most are small lengths, whose lookup runs no Python code."""

    def __missing__(self, n: int) -> bytes:
        if 1 << 28 <= n < 1 << 35:  # as most nanoseconds are
            return bytes((n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21 & 127 | 128, n >> 28))
        made = bytearray()
        while n >= 128:
            made.append(n & 127 | 128)
            n >>= 7
        made.append(n)
        return bytes(made)


varint = _Varints((number, bytes([number])) for number in range(128)).__getitem__


def _integer(number: int) -> bytes:
    if not -_INT32 <= number < _INT32:
        raise ValueError(f"Jina's protobuf has integers of 32 bits, got {number}; send it as a float or as text")
    return varint(number & 0xFFFF_FFFF_FFFF_FFFF)


def framed(tag: bytes, content: bytes) -> bytes:
    """A field of a message, a text or bytes, with its length."""
    head = tag + varint(len(content))
    return head + content if len(content) <= _LARGE else b"".join((head, content))  # the latter lets other threads run


def _item(field: Field) -> Field:
    """The plan of the items of a list, a set or a dict."""
    return field.items[-1] if field.kind in ("list", "set", "dict") and field.items else _ANY


def _tail(kind: type, field: Field, default: str | None = None) -> bytes:
    """docarray's name for a value's type, if any, as a field."""
    name = getattr(kind, "_proto_type_name", None) or field.tag or default
    return framed(b"\x6a", name.encode()) if name else b""


def _around(name: str, shape: tuple[int, ...], size: int) -> tuple[bytes, bytes]:
    """The bytes before and after the buffer of a tensor."""
    dtype = framed(b"\x1a", name.encode())
    after = (framed(b"\x12", b"".join(map(varint, shape))) if shape else b"") + dtype
    before = b"\x0a" + varint(size) if size else b""
    dense = len(before) + size + len(after)
    before = b"\x0a" + varint(dense) + before
    return b"\x32" + varint(len(before) + size + len(after)) + before, after


def _tensor(name: str, array: Any, tail: bytes) -> bytes:
    before, after = _around(name, array.shape, array.nbytes)
    return b"".join([before, array, after, tail])
