"""Encodes docs to bytes and decodes them, by a field plan: JSON values, and one msgpack buffer for each doc.

A document whose values have exactly the plan's types is made without pydantic. If a value has another type, or the class
has rules of its own, pydantic reads the document and reports the errors. Without the class, documents are dicts.

In JSON, tensors are nested lists and bytes are base64; NaN and infinities are written as null, and refused when read.
Integers have at most 64 bits. Of a repeated key the last one counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from jina_asgi.documents import field_plans, pydantic_facts
from jina_asgi.documents._sizes import LARGE
from jina_asgi.documents.chunked_writers import ENCODING_ERRORS, JsonPieces, PackedPieces, explain_unencodable
from jina_asgi.documents.columns import column_length, stacked
from jina_asgi.documents.msgpack import Buffer, unpack, unpack_answer
from jina_asgi.documents.pydantic_reader import plain_place
from jina_asgi.documents.readers import MAX_DEPTH, Mismatch, Readers, check_depth, errors_of, secret_hider
from jina_asgi.documents.writers import Rendered, Writer, pack_rendered
from jina_asgi.errors import ExecutorError, InvalidDocs
from jina_asgi.errors._shown import MAX_ERRORS, safe_str, shortened
from jina_asgi.types import Docs, Parts, Schema

#: This many docs are faster to read field by field.
_MIN_ROWS = 4
_UNWRITABLE = ENCODING_ERRORS


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
    """Converts a document, or a model of parameters, to plain values, from which its class or a similar one can be read.

    Raises:
        InvalidDocs: a value cannot be written.
    """
    (buffer,) = codec_of(type(document)).encode([document])
    found: dict[str, Any] = unpack(buffer)
    return found


class Codec:
    """Encodes and decodes the docs of one schema."""

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
        #: Whether values can nest to any depth: untyped values, or documents within documents of their class.
        self.nests = field_plans.nests(schema)
        #: Reads and writes these docs as protobuf; set by `protocols.protobuf.documents.wire` on first use.
        self.cached_wire: Any = None
        self._json_differs = any(map(pydantic_facts.json_differs, schema.models.values()))
        #: Hides the secrets of an answered document, if its class is not available to do so.
        self.hide = secret_hider(schema) if self.model is None else None
        self._names = [field.name for field in schema.fields]
        self._tensors = [field.name for field in schema.fields if field.kind == "tensor"]
        self._json_options = orjson.OPT_SERIALIZE_NUMPY | (
            orjson.OPT_NON_STR_KEYS if field_plans.documents_with(schema, lambda f: f.kind in ("dict", "json")) else 0
        )

    def docs(self, typed: list[Any]) -> Docs:
        """Docs of typed documents; this codec encodes them when needed."""
        return Docs(self, typed)

    def encoded(self, buffers: Sequence[bytes | memoryview]) -> Docs:
        """Docs of buffers; this codec decodes them when needed."""
        return Docs(self, None, buffers)

    @functools.cached_property
    def _read_yielding(self) -> Callable[[Any], Any]:
        return Readers(self.schema, yielding=True).of(self.schema.name)

    def read(
        self, items: Iterable[Any], depth: int = MAX_DEPTH, *, owned: bool = False, yielding: bool = False
    ) -> list[Any]:
        """Makes docs from plain values, as parsed from JSON or msgpack.

        Args:
            items: a dict for each document.
            depth: the nesting limit of untyped values, and of documents within documents of their class.
            owned: the dicts are not used by others, and may become the documents' own; faster by a tenth.
            yielding: let other threads run meanwhile; of a list or mapping only the first error is listed.

        Raises:
            InvalidDocs: with the errors of all documents, at most 100 and the number of others; `loc` begins with the
                document's index.
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
                errors += [{**entry, "loc": [index, *map(plain_place, entry["loc"])]} for entry in errors_of(error)]
                if len(errors) >= MAX_ERRORS:
                    break
        if errors:
            listed = shortened(errors, unread=len(items) - 1 - index, only_first=yielding)
            more = "; of each list or mapping only the first error is listed, as the request is large" * yielding
            raise InvalidDocs(f"the docs do not match the schema {self.schema.name}{more}", listed)
        return self.wrap(docs)

    def _read_as_columns(self, items: list[Any], owned: bool) -> list[Any] | None:
        """Makes docs field by field from dicts that all have the same fields; None if they do not."""
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
        """Encodes each doc to a msgpack buffer, for another process of this library: secrets are not hidden.

        `in_pieces`: let other threads run meanwhile.

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
        """As `encode`, but without copying the large tensors of a document."""
        if not self._tensors:
            return self.encode(docs, in_pieces=in_pieces)
        encode = self._encode_in_pieces if in_pieces else self._writer.encode_secrets
        parts, values = self._writer.parts, self._writer.values
        try:
            return [parts(values(doc), self._tensors, encode) for doc in docs]
        except _UNWRITABLE as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {self.explain(docs, error)}") from error

    def encode_answers(self, docs: Sequence[Any], *, in_pieces: bool = False) -> Sequence[bytes | Parts]:
        """As `encode_parts`, and with the JSON that the class makes of each doc, if it differs from the field values.

        Raises:
            InvalidDocs: as `encode`.
        """
        if not self._json_differs:
            return self.encode_parts(docs, in_pieces=in_pieces)
        try:
            json = map(partial(self.dumps, in_pieces=in_pieces), self.to_json(docs))
            return list(map(pack_rendered, self.encode(docs, in_pieces=in_pieces), json))
        except ExecutorError as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {error}") from error

    def encode_for_clients(self, docs: Sequence[Any], *, in_pieces: bool = False) -> list[bytes]:
        """As `encode_answers`, for a server that passes documents on to its own clients: secrets are hidden.

        Raises:
            ExecutorError: as `pack`, and `dumps`.
        """
        values = list(map(partial(self.pack, in_pieces=in_pieces), self.to_values(docs)))
        if not (self._json_differs if self.model is not None else any(type(doc) is Rendered for doc in docs)):
            return values
        return list(map(pack_rendered, values, map(partial(self.dumps, in_pieces=in_pieces), self.to_json(docs))))

    def decode(self, buffers: Sequence[Buffer]) -> list[Any]:
        """Decodes docs from one msgpack buffer each; large ones in pieces, between which other threads run.

        Raises:
            InvalidDocs: a buffer is not a document of this schema.
        """
        rows = list(map(unpack_answer, buffers))
        if rows and type(rows[0]) is Rendered:
            if self.model is None:
                return rows  # with the JSON of their class
            rows = list(map(dict, rows))
        return self.read(rows, owned=True, yielding=sum(map(len, buffers)) > LARGE)

    def to_columns(self, docs: Sequence[Any]) -> dict[str, Any]:
        """Converts docs to columns, one for each field: an array for tensors of one dtype and shape, else a list."""
        rows = self.to_values(docs)
        names: Iterable[str] = self._names
        if rows and len(rows[0]) != len(self._names):  # extra fields, or dicts without optional fields
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
        """Converts docs to values for `dumps`; `in_pieces` as there.

        Raises:
            ExecutorError: a serializer of the class failed.
        """
        json = self._writer.json_in_pieces if in_pieces else self._writer.json
        try:
            return [json(doc) for doc in docs] if self.hide is None else [json(self._shown(doc)) for doc in docs]
        except Exception as error:  # the class's own code, which may raise anything
            raise ExecutorError(f"a {self.schema.name} has no JSON form: {self.explain(docs, error)}") from error

    def explain(self, docs: Iterable[Any], error: BaseException, *, own: bool = True) -> str:
        """Says which field of the docs cannot be written, and why."""
        return explain_unencodable(list(docs), error, self._writer.encode_secrets, self._writer.values, own=own)

    def _shown(self, doc: Any) -> Any:
        """Hides the secrets of a document; the JSON of a `Rendered` one has them hidden already."""
        assert self.hide is not None
        return doc if type(doc) is Rendered and doc.json else self.hide(doc)

    def to_values(self, docs: Iterable[Any]) -> list[Any]:
        """Converts docs to values for `pack`."""
        values = self._writer.values
        return [values(doc) for doc in docs] if self.hide is None else [self.hide(doc) for doc in docs]

    def dumps(self, value: Any, *, in_pieces: bool = False) -> bytes:
        """Writes an answer with docs from `to_json` as JSON: tensors as lists, bytes as base64.

        `in_pieces`: let other threads run meanwhile.

        Raises:
            ExecutorError: a value has no JSON form.
        """
        write = self._dumps_in_pieces if in_pieces else self._dumps
        try:
            return write(value)
        except (TypeError, ValueError, RecursionError) as error:
            why = explain_unencodable(value, error, write, self._writer.json)
            raise ExecutorError(f"an answer has no JSON form: {why}") from error

    def dumps_answer(self, docs: list[Any], rest: dict[str, Any], *, in_pieces: bool = False) -> bytes:
        """An answer as JSON bytes: its docs, and the rest beside them; as `to_json` and `dumps`, in fewer steps than both."""
        if not in_pieces and self.hide is None:
            json = self._writer.json
            try:
                body = {"data": [json(doc) for doc in docs], **rest}
                return orjson.dumps(body, self._writer.for_json, self._json_options)
            except Exception:  # noqa: BLE001, S110  # below they word the error, or write keys that are no texts
                pass
        return self.dumps({"data": self.to_json(docs, in_pieces=in_pieces), **rest}, in_pieces=in_pieces)

    def dumps_doc(self, doc: Any) -> bytes:
        """One document as JSON bytes; raises as `to_json` and `dumps`, in fewer steps than both."""
        try:
            return orjson.dumps(
                self._writer.json(self._shown(doc) if self.hide else doc), self._writer.for_json, self._json_options
            )
        except Exception:  # noqa: BLE001  # they word the error, or write keys that are no texts
            return self.dumps(self.to_json([doc])[0])

    def _dumps(self, value: Any) -> bytes:
        try:
            return orjson.dumps(value, self._writer.for_json, self._json_options)
        except TypeError as error:
            if "Dict key must" not in safe_str(error):
                raise
            return orjson.dumps(value, self._writer.for_json, self._json_options | orjson.OPT_NON_STR_KEYS)

    def dumps_request(self, value: Any) -> bytes:
        """Writes a request with docs from `to_values` as JSON from which the same documents can be read; secrets are not hidden.

        Raises:
            TypeError: a value has no JSON form.
        """
        return orjson.dumps(value, self._writer.for_request, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)

    def pack(self, value: Any, *, in_pieces: bool = False) -> bytes:
        """Writes an answer with docs from `to_values` as msgpack; `in_pieces` as in `dumps`.

        Raises:
            ExecutorError: a value cannot be written.
        """
        write = self._pack_in_pieces if in_pieces else self._writer.encode
        try:
            return write(value)
        except _UNWRITABLE as error:
            why = explain_unencodable(value, error, write, self._writer.values)
            raise ExecutorError(f"an answer cannot be written as msgpack: {why}") from error
