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
from functools import lru_cache, partial
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from jina_asgi.documents import (
    field_plans,
    pydantic_facts,
    rendered,
    unencodable,
    untyped_reader,
    yielding_validator,
)
from jina_asgi.documents.chunked_writers import JsonPieces, PackedPieces
from jina_asgi.documents.columns import column_length, stacked
from jina_asgi.documents.msgpack import Buffer, unpack, unpack_answer
from jina_asgi.documents.readers import MAX_DEPTH, Mismatch, Readers, check_depth, errors_of
from jina_asgi.documents.writers import Writer
from jina_asgi.errors import ExecutorError, InvalidDocs
from jina_asgi.errors._error_lists import MAX_ERRORS, shortened
from jina_asgi.errors._shown import safe_str
from jina_asgi.types import Docs, Parts, Schema

#: From so many docs on it pays to read them field by field.
_MIN_ROWS = 4
_UNWRITABLE = unencodable.ERRORS


def codec(schema: Schema) -> Codec:
    """The codec of a schema, built once."""
    if schema.cached_codec is None:
        object.__setattr__(schema, "cached_codec", Codec(schema))
    found: Codec = schema.cached_codec
    return found


@lru_cache(maxsize=256)
def codec_of(model: type[BaseModel]) -> Codec:
    """The codec of a document class."""
    from jina_asgi.documents import schemas  # docarray, only where there are classes

    return codec(schemas.schema_of(model))


def plain(document: BaseModel) -> dict[str, Any]:
    """A document, or a model of parameters, as plain values that its class, or another one like it, reads again.

    Raises:
        InvalidDocs: it holds what cannot be written.
    """
    (buffer,) = codec_of(type(document)).encode([document])
    found: dict[str, Any] = unpack(buffer)
    return found


class Codec:
    """Typed docs to bytes and back."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.model: type[BaseModel] | None = schema.model
        readers = Readers(schema)
        self._read, self._read_columns = readers.of(schema.name), readers.of_columns(schema.name)
        self._writer = writer = Writer(schema.models)
        self._dumps_in_pieces = JsonPieces(self._dumps, writer.for_json).write
        self._pack_in_pieces = PackedPieces(writer.encode, writer.values).write
        self._encode_in_pieces = PackedPieces(writer.encode_secrets, writer.values).write
        #: Makes the endpoint's own list type (`DocList[T]`) of a list of docs.
        self.wrap: Callable[[list[Any]], list[Any]] = list
        if self.model is not None:
            from jina_asgi.documents import document_types  # docarray, only where there are classes

            self.wrap = document_types.Container.docs(self.model).make
        #: Whether pydantic can read these docs straight from JSON: no tensors, bytes, or defaults of another type in them.
        self.is_plain = self.model is not None and not readers.own
        #: Whether what these docs hold may nest to any depth: untyped values, or documents of their own kind.
        self.nests = field_plans.nests(schema)
        #: What reads and writes these docs as protobuf, set by `protocols.protobuf.documents.wire` on first use.
        self.cached_wire: Any = None
        self._json_differs = any(map(pydantic_facts.json_differs, schema.models.values()))
        #: What hides the secrets of a document that is answered, where its class is not at hand to do so.
        self.hide = untyped_reader.secret_hider(schema) if self.model is None else None
        self._names = [field.name for field in schema.fields]
        self._tensors = [field.name for field in schema.fields if field.kind == "tensor"]
        self._json_options = orjson.OPT_SERIALIZE_NUMPY | (
            orjson.OPT_NON_STR_KEYS if field_plans.documents_with(schema, lambda f: f.kind in ("dict", "json")) else 0
        )

    def docs(self, typed: list[Any]) -> Docs:
        """Docs of typed documents that this codec encodes when asked."""
        return Docs(self, typed)

    def encoded(self, buffers: Sequence[bytes | memoryview]) -> Docs:
        """Docs of buffers that this codec decodes when asked."""
        return Docs(self, None, buffers)

    @functools.cached_property
    def _read_yielding(self) -> Callable[[Any], Any]:
        return Readers(self.schema, yielding=True).of(self.schema.name)

    def read(
        self, items: Iterable[Any], depth: int = MAX_DEPTH, *, owned: bool = False, yielding: bool = False
    ) -> list[Any]:
        """Docs from plain values, as JSON or msgpack gives them.

        Args:
            items: a dict a document.
            depth: how deep values without a type, and documents of their own kind, may nest.
            owned: the dicts are the caller's own, just parsed, and may become the documents'; quicker by a tenth.
            yielding: let other threads run meanwhile; of a list or mapping only the first error is listed.

        Raises:
            InvalidDocs: with every document's own errors, at most 100 and how many more; `loc` begins with the document's index.
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
        read, nests = self._read_yielding if yielding else self._read, self.nests
        for index, item in enumerate(items):
            try:
                docs.append(read(check_depth(item, depth) if nests else item))
            except (ValidationError, Mismatch) as error:
                errors += [
                    {**entry, "loc": [index, *map(yielding_validator.plain, entry["loc"])]}
                    for entry in errors_of(error)
                ]
                if len(errors) >= MAX_ERRORS:
                    break
        if errors:
            listed = shortened(errors, unread=len(items) - 1 - index, only_first=yielding)
            more = "; of each list or mapping only the first error is listed, as the request is large" * yielding
            raise InvalidDocs(f"the docs do not match the schema {self.schema.name}{more}", listed)
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

    def encode(self, docs: Sequence[Any], *, in_pieces: bool = False) -> list[bytes]:
        """One msgpack buffer a doc, for the other half of this library: secrets are in it as they are.

        `in_pieces`: other threads get their turn meanwhile.

        Raises:
            InvalidDocs: a value cannot be written (an integer over 64 bits, a tensor of objects).
        """
        encode = self._encode_in_pieces if in_pieces else self._writer.encode_secrets
        values = self._writer.values
        try:
            return [encode(values(doc)) for doc in docs]
        except _UNWRITABLE as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {self.explain(docs, error)}") from error

    def encode_parts(self, docs: Sequence[Any], *, in_pieces: bool = False) -> Sequence[bytes | Parts]:
        """As `encode`, but the large tensors of a document stay where they are; raises as `encode` does."""
        if not self._tensors:
            return self.encode(docs, in_pieces=in_pieces)
        encode = self._encode_in_pieces if in_pieces else self._writer.encode_secrets
        parts, values = self._writer.parts, self._writer.values
        try:
            return [parts(values(doc), self._tensors, encode) for doc in docs]
        except _UNWRITABLE as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {self.explain(docs, error)}") from error

    def encode_answers(self, docs: Sequence[Any], *, in_pieces: bool = False) -> Sequence[bytes | Parts]:
        """As `encode_parts`, with what their classes make of them for JSON, where that is another thing than their values.

        Raises:
            InvalidDocs: as `encode`.
        """
        if not self._json_differs:
            return self.encode_parts(docs, in_pieces=in_pieces)
        try:
            json = map(partial(self.dumps, in_pieces=in_pieces), self.to_json(docs))
            return list(map(rendered.pack, self.encode(docs, in_pieces=in_pieces), json))
        except ExecutorError as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {error}") from error

    def encode_for_clients(self, docs: Sequence[Any], *, in_pieces: bool = False) -> list[bytes]:
        """As `encode_answers`, for a server that hands documents on to its own clients: secrets are hidden.

        Raises:
            ExecutorError: as `pack`, and `dumps`.
        """
        values = list(map(partial(self.pack, in_pieces=in_pieces), self.to_values(docs)))
        if not (self._json_differs if self.model is not None else any(type(doc) is rendered.Rendered for doc in docs)):
            return values
        return list(map(rendered.pack, values, map(partial(self.dumps, in_pieces=in_pieces), self.to_json(docs))))

    def decode(self, buffers: Sequence[Buffer]) -> list[Any]:
        """Docs from one msgpack buffer each.

        Raises:
            InvalidDocs: a buffer is no document, or not of this schema.
        """
        rows = list(map(unpack_answer, buffers))
        if rows and type(rows[0]) is rendered.Rendered:
            if self.model is None:
                return rows  # as their class has them
            rows = list(map(dict, rows))
        return self.read(rows, owned=True)

    def to_columns(self, docs: Sequence[Any]) -> dict[str, Any]:
        """The docs field by field: tensors of one dtype and shape stacked into one array, all else in lists."""
        rows = self.to_values(docs)
        names: Iterable[str] = self._names
        if rows and len(rows[0]) != len(self._names):  # extras, or dicts that lack what may be left out
            names = dict.fromkeys(name for row in rows for name in row)
        return {name: stacked([row.get(name) for row in rows]) for name in names} if rows else {}

    def from_columns(self, columns: dict[str, Any], depth: int = MAX_DEPTH, *, yielding: bool = False) -> list[Any]:
        """The inverse of `to_columns`; `yielding` as of `read`.

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
        return self.read(rows, depth, yielding=yielding)

    def to_json(self, docs: Iterable[Any], *, in_pieces: bool = False) -> list[Any]:
        """The docs as values that `dumps` writes; `in_pieces` as there.

        Raises:
            ExecutorError: a serializer of the class's own failed.
        """
        json = self._writer.json_in_pieces if in_pieces else self._writer.json
        try:
            return [json(doc) for doc in docs] if self.hide is None else [json(self._shown(doc)) for doc in docs]
        except Exception as error:  # its own code, which may raise anything
            raise ExecutorError(f"a {self.schema.name} has no JSON form: {self.explain(docs, error)}") from error

    def explain(self, docs: Iterable[Any], error: BaseException, *, own: bool = True) -> str:
        """Which field of docs that cannot be written it is, and why."""
        return unencodable.explain(list(docs), error, self._writer.encode_secrets, self._writer.values, own=own)

    def _shown(self, doc: Any) -> Any:
        """A document without its secrets; one with its own JSON has none of them there."""
        assert self.hide is not None
        return doc if type(doc) is rendered.Rendered and doc.json else self.hide(doc)

    def to_values(self, docs: Iterable[Any]) -> list[Any]:
        """The docs as values that `pack` writes."""
        values = self._writer.values
        return [values(doc) for doc in docs] if self.hide is None else [self.hide(doc) for doc in docs]

    def dumps(self, value: Any, *, in_pieces: bool = False) -> bytes:
        """JSON bytes of an answer that holds docs from `to_json`: tensors as lists, bytes as base64.

        `in_pieces`: other threads get their turn meanwhile.

        Raises:
            ExecutorError: something in it has no JSON form.
        """
        write = self._dumps_in_pieces if in_pieces else self._dumps
        try:
            return write(value)
        except (TypeError, ValueError, RecursionError) as error:
            why = unencodable.explain(value, error, write, self._writer.json)
            raise ExecutorError(f"an answer has no JSON form: {why}") from error

    def _dumps(self, value: Any) -> bytes:
        try:
            return orjson.dumps(value, self._writer.for_json, self._json_options)
        except TypeError as error:
            if "Dict key must" not in safe_str(error):
                raise
            return orjson.dumps(value, self._writer.for_json, self._json_options | orjson.OPT_NON_STR_KEYS)

    def dumps_request(self, value: Any) -> bytes:
        """JSON bytes of a request that holds docs from `to_values`, such that the same documents are read of it.

        Secrets are in it as they are.

        Raises:
            TypeError: something in it has no JSON form.
        """
        return orjson.dumps(value, self._writer.for_request, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)

    def pack(self, value: Any, *, in_pieces: bool = False) -> bytes:
        """An answer that holds docs from `to_values` as msgpack; `in_pieces` as of `dumps`.

        Raises:
            ExecutorError: something in it cannot be written.
        """
        write = self._pack_in_pieces if in_pieces else self._writer.encode
        try:
            return write(value)
        except _UNWRITABLE as error:
            why = unencodable.explain(value, error, write, self._writer.values)
            raise ExecutorError(f"an answer cannot be written as msgpack: {why}") from error
