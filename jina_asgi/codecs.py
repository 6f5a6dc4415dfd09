"""Docs to bytes and back, from a field plan: JSON values, and one msgpack buffer a doc.

A document is checked by exact types and set without pydantic; where a value is not just what the plan says,
or the class has rules of its own, pydantic reads that document instead and says what is wrong. Where only the
plan is at hand documents are dicts.

In JSON tensors are nested lists and bytes base64; NaN and infinities are written null, as JSON has none, and not
read. Integers are written up to 64 bits. Text names the same thing twice: the last one counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from jina_asgi import patient, plans, tensors
from jina_asgi._shown import said
from jina_asgi.errors import ExecutorError, InvalidDocs
from jina_asgi.readers import MAX_DEPTH, Mismatch, Readers, check_depth, errors_of
from jina_asgi.types import Docs, Parts, Schema
from jina_asgi.writers import Writer

Buffer = bytes | bytearray | memoryview
_MAX_ERRORS = 100
#: From so many docs on it pays to read them field by field.
_MIN_ROWS = 4
_UNWRITABLE = (TypeError, ValueError, OverflowError, AttributeError, RecursionError)


def codec(schema: Schema) -> Codec:
    """The codec of a schema, built once."""
    if schema.cached_codec is None:
        object.__setattr__(schema, "cached_codec", Codec(schema))
    found: Codec = schema.cached_codec
    return found


@lru_cache(maxsize=256)
def codec_of(model: type[BaseModel]) -> Codec:
    """The codec of a document class."""
    from jina_asgi import schemas  # docarray, only where there are classes

    return codec(schemas.schema_of(model))


def plain(document: BaseModel) -> dict[str, Any]:
    """A document, or a model of parameters, as plain values that its class, or another one like it, reads again.

    Raises:
        InvalidDocs: it holds what cannot be written.
    """
    (buffer,) = codec_of(type(document)).encode([document])
    found: dict[str, Any] = _decode(buffer)
    return found


class Codec:
    """Typed docs to bytes and back."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.model: type[BaseModel] | None = schema.model
        readers = Readers(schema)
        self._read, self._read_columns = readers.of(schema.name), readers.of_columns(schema.name)
        self._writer = Writer(schema.models)
        #: Makes the endpoint's own list type (`DocList[T]`) of a list of docs.
        self.wrap: Callable[[list[Any]], list[Any]] = list
        if self.model is not None:
            from jina_asgi import schemas  # docarray, only where there are classes

            self.wrap = schemas.Container.docs(self.model).make
        #: Whether pydantic can read these docs straight from JSON: no tensors, bytes, or defaults of another type in them.
        self.is_plain = self.model is not None and not readers.own
        #: Whether what these docs hold may nest to any depth: untyped values, or documents of their own kind.
        self.nests = plans.nests(schema)
        #: What reads and writes these docs as protobuf, set by `protocols.protobuf.documents.wire` on first use.
        self.cached_wire: Any = None
        self._names = [field.name for field in schema.fields]
        self._tensors = [field.name for field in schema.fields if field.kind == "tensor"]
        self._json_options = orjson.OPT_SERIALIZE_NUMPY | (
            orjson.OPT_NON_STR_KEYS if plans.documents_with(schema, lambda f: f.kind in ("dict", "json")) else 0
        )

    def docs(self, typed: list[Any]) -> Docs:
        """Docs of typed documents that this codec encodes when asked."""
        return Docs(self, typed)

    def encoded(self, buffers: Sequence[bytes | memoryview]) -> Docs:
        """Docs of buffers that this codec decodes when asked."""
        return Docs(self, None, buffers)

    @functools.cached_property
    def _read_patiently(self) -> Callable[[Any], Any]:
        return Readers(self.schema, patient=True).of(self.schema.name)

    def read(
        self, items: Iterable[Any], depth: int = MAX_DEPTH, *, owned: bool = False, patiently: bool = False
    ) -> list[Any]:
        """Docs from plain values, as JSON or msgpack gives them.

        Args:
            items: a dict a document.
            depth: how deep values without a type, and documents of their own kind, may nest.
            owned: the dicts are the caller's own, just parsed, and may become the documents'; quicker by a tenth.
            patiently: other threads get their turn meanwhile, and of a list or mapping only the first error is told.

        Raises:
            InvalidDocs: with every document's own errors, at most 100; `loc` begins with the document's index.
        """
        items = items if isinstance(items, list) else list(items)
        if (
            len(items) >= _MIN_ROWS
            and self.model is not None
            and (made := self._read_as_columns(items, owned)) is not None
        ):
            return self.wrap(made)
        docs: list[Any] = []
        errors: list[dict[str, Any]] = []
        read, nests = self._read_patiently if patiently else self._read, self.nests
        for index, item in enumerate(items):
            try:
                docs.append(read(check_depth(item, depth) if nests else item))
            except (ValidationError, Mismatch) as error:
                errors += [{**entry, "loc": [index, *map(patient.plain, entry["loc"])]} for entry in errors_of(error)]
                if len(errors) >= _MAX_ERRORS:
                    break
        if errors:
            more = (
                "; of each list or mapping only the first error is told, as the request is large" if patiently else ""
            )
            raise InvalidDocs(f"the docs do not match the schema {self.schema.name}{more}", errors[:_MAX_ERRORS])
        return self.wrap(docs)

    def _read_as_columns(self, items: list[Any], owned: bool) -> list[Any] | None:
        """Docs of dicts that all have the same fields, field by field; None where that is not so."""
        if self.nests or set(map(type, items)) != {dict}:
            return None
        columns: dict[str, list[Any]] = {}
        for name in self._names:
            if name in items[0]:
                try:
                    columns[name] = [item[name] for item in items]
                except KeyError:
                    return None
            elif any(name in item for item in items):
                return None
        owned = owned and list(items[0]) == self._names and {len(item) for item in items} == {len(columns)}
        return self._read_columns(columns, len(items), items if owned else None)

    def encode(self, docs: Sequence[Any]) -> list[bytes]:
        """One msgpack buffer a doc, for the other half of this library: secrets are in it as they are.

        Raises:
            InvalidDocs: a value cannot be written (an integer over 64 bits, a tensor of objects).
        """
        encode, values = self._writer.encode_secrets, self._writer.values
        try:
            return [encode(values(doc)) for doc in docs]
        except _UNWRITABLE as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {said(error)}") from error

    def encode_parts(self, docs: Sequence[Any]) -> Sequence[bytes | Parts]:
        """As `encode`, but the large tensors of a document stay where they are.

        Raises:
            InvalidDocs: as `encode`.
        """
        if not self._tensors:
            return self.encode(docs)
        parts, values = self._writer.parts, self._writer.values
        try:
            return [parts(values(doc), self._tensors) for doc in docs]
        except _UNWRITABLE as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {said(error)}") from error

    def decode(self, buffers: Sequence[Buffer]) -> list[Any]:
        """Docs from one msgpack buffer each.

        Raises:
            InvalidDocs: a buffer is no document, or not of this schema.
        """
        try:
            rows = list(map(_decode, buffers))
        except _UNREADABLE as error:
            raise InvalidDocs(f"not a msgpack document: {error}") from error
        return self.read(rows, owned=True)

    def to_columns(self, docs: Sequence[Any]) -> dict[str, Any]:
        """The docs field by field: tensors of one dtype and shape stacked into one array, all else in lists."""
        rows = [self._writer.values(doc) for doc in docs]
        names: Iterable[str] = self._names
        if rows and len(rows[0]) != len(self._names):  # extras, or dicts that lack what may be left out
            names = dict.fromkeys(name for row in rows for name in row)
        return {name: _stacked([row.get(name) for row in rows]) for name in names} if rows else {}

    def from_columns(self, columns: dict[str, Any], depth: int = MAX_DEPTH, *, patiently: bool = False) -> list[Any]:
        """The inverse of `to_columns`; `patiently` as of `read`.

        Raises:
            InvalidDocs: the columns differ in length, or a document made of them is wrong.
        """
        count = column_length(columns)
        docs = self._read_columns(columns, count)
        if docs is not None:
            return self.wrap(docs)
        lists = [c.tolist() if isinstance(c, np.ndarray) and c.ndim == 1 else c for c in columns.values()]
        names = list(columns)
        rows = [dict(zip(names, row)) for row in zip(*lists, strict=True)]  # noqa: B905  # as above
        return self.read(rows, depth, patiently=patiently)

    def to_json(self, docs: Iterable[Any]) -> list[Any]:
        """The docs as values that `dumps` writes.

        Raises:
            ExecutorError: a serializer of the class's own failed.
        """
        json = self._writer.json
        try:
            return [json(doc) for doc in docs]
        except _UNWRITABLE as error:
            raise ExecutorError(f"a {self.schema.name} has no JSON form: {said(error)}") from error

    def to_values(self, docs: Iterable[Any]) -> list[Any]:
        """The docs as values that `pack` writes."""
        return [self._writer.values(doc) for doc in docs]

    def dumps(self, value: Any) -> bytes:
        """JSON bytes of an answer that holds docs from `to_json`: tensors as lists, bytes as base64.

        Raises:
            ExecutorError: something in it has no JSON form.
        """
        try:
            try:
                return orjson.dumps(value, self._writer.for_json, self._json_options)
            except TypeError as error:
                if "Dict key must" not in said(error):
                    raise
                options = self._json_options | orjson.OPT_NON_STR_KEYS
                return orjson.dumps(value, self._writer.for_json, options)
        except TypeError as error:
            raise ExecutorError(f"an answer has no JSON form: {said(error.__cause__ or error)}") from error

    def pack(self, value: Any) -> bytes:
        """An answer that holds docs from `to_values` as msgpack.

        Raises:
            ExecutorError: something in it cannot be written.
        """
        try:
            return self._writer.encode(value)
        except _UNWRITABLE as error:
            raise ExecutorError(f"an answer cannot be written as msgpack: {said(error)}") from error


def column_length(columns: dict[str, Any]) -> int:
    """How many docs some columns hold.

    Raises:
        InvalidDocs: a column is no list or tensor, or they differ in length.
    """
    lengths = {len(c) if type(c) is list or (isinstance(c, np.ndarray) and c.ndim) else -1 for c in columns.values()}
    if -1 in lengths:
        raise InvalidDocs("expected a list or a tensor in each column")
    if len(lengths) > 1:
        raise InvalidDocs("the columns differ in length: expected one entry a doc in each")
    return lengths.pop() if lengths else 0


def pack(value: Any) -> bytes:
    """Any value that may hold docs and tensors as msgpack."""
    return _encode(value)


def unpack(buffer: Buffer) -> Any:
    """The value in a msgpack buffer.

    Raises:
        InvalidDocs: the bytes are not msgpack, nest too deep, or hold a tensor that lies about its size.
    """
    try:
        return _decode(buffer)
    except _UNREADABLE as error:
        raise InvalidDocs(f"not a msgpack document: {error}") from error


def _stacked(values: list[Any]) -> Any:
    first = values[0]
    if not isinstance(first, np.ndarray) or first.ndim in (0, tensors.MAX_AXES):
        return values
    dtype, shape = first.dtype, first.shape
    if any(not isinstance(a, np.ndarray) or a.dtype is not dtype or a.shape != shape for a in values):
        return values
    return np.frombuffer(b"".join([a.tobytes() for a in values]), dtype).reshape(len(values), *shape)


_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError, UnicodeDecodeError)
_encode = Writer({}).encode
_decode = msgspec.msgpack.Decoder(ext_hook=tensors.unpack).decode
