"""Docs to bytes and back, from a field plan: JSON values, and one msgpack buffer a doc.

A document is checked by exact types and set without pydantic; where a value is not just what the plan says,
or the class has rules of its own, pydantic reads that document instead and says what is wrong. Where only the
plan is at hand documents are dicts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from jina_asgi import schemas, tensors
from jina_asgi.errors import InvalidDocs, JinaASGIError
from jina_asgi.readers import Mismatch, errors_of, reader
from jina_asgi.types import Docs, Field, Schema

Buffer = bytes | bytearray | memoryview


def codec(schema: Schema) -> Codec:
    """The codec of a schema, built once."""
    if schema.cached_codec is None:
        object.__setattr__(schema, "cached_codec", Codec(schema))
    found: Codec = schema.cached_codec
    return found


class Codec:
    """Typed docs to bytes and back."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.model: type[BaseModel] | None = schema.model
        self._read = reader(schema, schema.name)
        #: Makes the endpoint's own list type (`DocList[T]`) of a list of docs.
        self.wrap: Callable[[list[Any]], list[Any]] = (
            schemas.Container.docs(self.model).make if self.model is not None else list
        )
        self._names = [field.name for field in schema.fields]
        self._own_serializer = self.model is not None and schemas.has_own_serializer(self.model)
        #: Whether pydantic can read these docs straight from JSON: no tensors or bytes in them.
        self.is_plain = self.model is not None and not any(
            _carries_binary(field) for fields in schema.documents.values() for field in fields
        )
        self._json_options = orjson.OPT_SERIALIZE_NUMPY | (
            orjson.OPT_NON_STR_KEYS if any(f.kind in ("dict", "json") for f in schema.fields) else 0
        )

    def docs(self, typed: list[Any]) -> Docs:
        """Docs of typed documents that this codec encodes when asked."""
        return Docs(self, typed)

    def encoded(self, buffers: Sequence[bytes | memoryview]) -> Docs:
        """Docs of buffers that this codec decodes when asked."""
        return Docs(self, None, buffers)

    def read(self, items: Iterable[Any]) -> list[Any]:
        """Docs from plain values, as JSON or msgpack gives them.

        Raises:
            InvalidDocs: with every document's own errors, at most 100; `loc` begins with the document's index.
        """
        docs: list[Any] = []
        errors: list[dict[str, Any]] = []
        read = self._read
        for index, item in enumerate(items):
            try:
                docs.append(read(item))
            except ValidationError as error:
                errors += [{**entry, "loc": [index, *entry["loc"]]} for entry in errors_of(error)]
            except Mismatch as error:
                errors.append(error.entry(index))
            if len(errors) >= 100:
                break
        if errors:
            raise InvalidDocs(f"the docs do not match the schema {self.schema.name}", errors)
        return self.wrap(docs)

    def encode(self, docs: Sequence[Any]) -> list[bytes]:
        """One msgpack buffer a doc.

        Raises:
            InvalidDocs: a value cannot be written (an integer over 64 bits, a tensor of objects).
        """
        try:
            return [_encoder.encode(self._fields_of(doc)) for doc in docs]
        except (TypeError, ValueError, OverflowError, PydanticSerializationError) as error:
            raise InvalidDocs(f"a {self.schema.name} cannot be encoded: {error}") from error

    def decode(self, buffers: Sequence[Buffer]) -> list[Any]:
        """Docs from one msgpack buffer each.

        Raises:
            InvalidDocs: a buffer is no document, or not of this schema.
        """
        return self.read([unpack(buffer) for buffer in buffers])

    def to_columns(self, docs: Sequence[Any]) -> dict[str, Any]:
        """The docs field by field: tensors of one dtype and shape stacked into one array, all else in lists."""
        rows = [self._fields_of(doc) for doc in docs]
        return {name: _stacked([row[name] for row in rows]) for name in self._names} if rows else {}

    def from_columns(self, columns: dict[str, Any]) -> list[Any]:
        """The inverse of `to_columns`.

        Raises:
            InvalidDocs: the columns differ in length, or a document made of them is wrong.
        """
        if len({len(column) if isinstance(column, list | np.ndarray) else -1 for column in columns.values()}) > 1:
            raise InvalidDocs("the columns differ in length: expected one entry a doc in each")
        names = list(columns)
        try:
            rows = zip(*columns.values(), strict=True)
        except TypeError as error:
            raise InvalidDocs("expected a list or a tensor in each column") from error
        return self.read([dict(zip(names, row)) for row in rows])  # noqa: B905  # as long as each other, by zip above

    def to_json(self, docs: Iterable[Any]) -> list[Any]:
        """The docs as values that `dumps` writes."""
        if self._own_serializer:
            return [_dump(doc) if isinstance(doc, BaseModel) else doc for doc in docs]
        return [self._fields_of(doc) for doc in docs]

    def to_values(self, docs: Iterable[Any]) -> list[Any]:
        """The docs as values that `pack` writes."""
        return [self._fields_of(doc) for doc in docs]

    def dumps(self, value: Any) -> bytes:
        """JSON bytes of an answer that holds docs from `to_json`: tensors as lists, bytes as base64.

        Raises:
            InvalidDocs: something in it has no JSON form.
        """
        try:
            return orjson.dumps(value, _json_default, self._json_options)
        except TypeError as error:
            raise InvalidDocs(f"an answer has no JSON form: {error.__cause__ or error}") from error

    def _fields_of(self, doc: Any) -> dict[str, Any]:
        if type(doc) is self.model:
            fields: dict[str, Any] = doc.__dict__
            return fields
        if isinstance(doc, dict):
            return doc
        return {name: getattr(doc, name) for name in self._names}  # a subclass: only what the schema promises


def pack(value: Any) -> bytes:
    """Any value that may hold docs and tensors as msgpack."""
    packed: bytes = _encoder.encode(value)
    return packed


def unpack(buffer: Buffer) -> Any:
    """The value in a msgpack buffer.

    Raises:
        InvalidDocs: the bytes are not msgpack, nest too deep, or hold a tensor that lies about its size.
    """
    try:
        return _decoder.decode(buffer)
    except JinaASGIError:
        raise
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidDocs(f"not a msgpack document: {error}") from error


def _carries_binary(field: Field) -> bool:
    return field.kind in ("bytes", "tensor") or any(_carries_binary(item) for item in field.items)


def _stacked(values: list[Any]) -> Any:
    if not isinstance(values[0], np.ndarray):
        return values
    dtype, shape = values[0].dtype, values[0].shape
    if any(not isinstance(a, np.ndarray) or a.dtype is not dtype or a.shape != shape for a in values):
        return values
    data = b"".join([a.tobytes() for a in values])
    return np.frombuffer(data, dtype).reshape(len(values), *shape)


@cache
def _is_own_serializer(model: type[BaseModel]) -> bool:
    return schemas.has_own_serializer(model)


def _dump(doc: BaseModel) -> Any:
    if _is_own_serializer(type(doc)):
        return doc.__pydantic_serializer__.to_python(doc, by_alias=True, warnings=False)
    return doc.__dict__


def _json_default(value: Any) -> Any:
    array = schemas.tensor_to_numpy(value)
    if array is not None:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if isinstance(value, BaseModel):
        return _dump(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return to_jsonable_python(value)


def _msgpack_default(value: Any) -> Any:
    if isinstance(value, str):  # docarray's ID and URLs: msgspec knows str itself only
        return str.__str__(value)
    if isinstance(value, np.ndarray):
        return msgspec.msgpack.Ext(*tensors.pack(value))
    array = schemas.tensor_to_numpy(value)
    if array is not None:
        return msgspec.msgpack.Ext(*tensors.pack(array))
    if isinstance(value, BaseModel):
        return value.__dict__
    return to_jsonable_python(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_msgpack_default)
_decoder = msgspec.msgpack.Decoder(ext_hook=tensors.unpack)
