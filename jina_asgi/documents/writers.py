"""Prepares documents for JSON and msgpack: the fields of their class only.

JSON is as pydantic writes it (aliases, serializers, computed fields), except for bytes, in base64, and tensors. msgpack
has the field values, from which documents can be read.

An answered document with the JSON that its class made of it.

A process that has only the field plan can thus write the JSON that the class would: with its serializers, computed
fields and aliases.
"""

from __future__ import annotations

import base64
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import orjson
from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

from jina_asgi.documents import pydantic_facts, tensors
from jina_asgi.types import Parts

#: The msgpack extension of such a document: the length of its values, the values, and the JSON.
CODE = 33
_SIZE = struct.Struct("<I")
_EXT32_HEAD = 0xC9


class Rendered(dict[str, Any]):
    """A document's values by field. `json` becomes None when a value is changed."""

    __slots__ = ("json",)

    def __init__(self, values: dict[str, Any], json: bytes) -> None:
        super().__init__(values)
        self.json: bytes | None = json

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.json = None


class RawJson:
    """Encoded JSON within a value, as orjson's Fragment, but with a known length."""

    __slots__ = ("json",)

    def __init__(self, json: bytes) -> None:
        self.json = json


def pack_rendered(values: bytes, json: bytes) -> bytes:
    """Packs a document's values, already msgpack, and its JSON."""
    size = _SIZE.size + len(values) + len(json)
    if size < 1 << 16:
        return msgspec.msgpack.encode(msgspec.msgpack.Ext(CODE, _SIZE.pack(len(values)) + values + json))
    head = struct.pack(">BIb", _EXT32_HEAD, size, CODE) + _SIZE.pack(len(values))
    return b"".join([head, values, json])  # lets other threads run if it is large


def unpack_rendered(code: int, buffer: memoryview) -> Any:
    """Reads a msgpack extension of an answer: such a document, or a tensor.

    Raises:
        ValueError: it is neither.
    """
    if code != CODE:
        return tensors.unpack(code, buffer)
    values, json = _halves(buffer)
    return Rendered(_values(values), json)


def split_rendered(buffer: bytes | bytearray | memoryview) -> tuple[memoryview, bytes] | None:
    """The values, still msgpack, and the JSON of a document that is too large for a short head; None for other values."""
    raw = memoryview(buffer)
    if raw[0] != _EXT32_HEAD or raw[5] != CODE or len(raw) != 6 + int.from_bytes(raw[1:5], "big"):
        return None
    return _halves(raw[6:])


def _halves(buffer: memoryview) -> tuple[memoryview, bytes]:
    if len(buffer) < _SIZE.size:
        raise ValueError("not a document with its JSON")
    end = _SIZE.size + _SIZE.unpack_from(buffer)[0]
    return buffer[_SIZE.size : end], bytes(buffer[end:])


_values = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=tensors.unpack).decode


_MOST = 10_000  # values of an iterator
#: The msgpack head of an extension that `parts` writes.
_FIXMAP, _MAP16, _MAP32, _EXT32 = 0x80, 0xDE, 0xDF, 0xC9


@dataclass(frozen=True, slots=True)
class Layout:
    """How documents of one class are written.

    Attributes:
        attributes: the wire name of each field, by its name in Python.
        dumps: functions that convert fields of types that only pydantic knows, and datetimes.
        is_plain: `__dict__` has exactly the fields, if their number agrees.
        own_json: the class defines its own JSON.
        keeps_all: all attributes of a document are fields (docarray's AnyDoc).
        arrays: the tensor fields; orjson would write numpy's arrays of any dtype.
        as_they_are: the fields that pydantic must not convert for JSON, by name in Python: bytes, tensors, documents.
    """

    attributes: Mapping[str, str]
    dumps: Mapping[str, Callable[[Any], Any]]
    is_plain: bool
    own_json: bool
    as_they_are: Mapping[str, str]
    keeps_all: bool = False
    arrays: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: type[BaseModel]) -> Layout:
        from jina_asgi.documents import document_types  # docarray, only where there are classes

        attributes = {name: pydantic_facts.wire_name(model, name) for name in model.model_fields}
        dumps = pydantic_facts.dumps_of(model)
        moments = pydantic_facts.moments_of(model)
        keeps_extra = model.model_config.get("extra") == "allow"
        plain = not dumps and not moments and not keeps_extra and all(name == wire for name, wire in attributes.items())
        own = bool(dumps) or pydantic_facts.has_own_json(model)
        keeps_all = issubclass(model, document_types.AnyDoc)
        arrays = tuple(document_types.tensor_types(model))
        return cls(
            attributes,
            {**moments, **dumps},
            plain,
            own,
            document_types.as_they_are(model) if own else {},
            keeps_all,
            arrays,
        )

    def values(self, doc: BaseModel) -> dict[str, Any]:
        """The fields by their names on the wire."""
        fields, made = doc.__dict__, dict(doc.__pydantic_extra__ or {})
        if self.keeps_all:
            return fields
        for name, wire in self.attributes.items():
            if name in fields:
                value, dump = fields[name], self.dumps.get(name)
                made[wire] = value if dump is None else dump(value)
        return made

    def json(self, doc: BaseModel) -> Any:
        """Converts a document for JSON with pydantic, except for its bytes, tensors and nested documents."""
        left = self.as_they_are
        made = doc.__pydantic_serializer__.to_python(
            doc, mode="json", by_alias=True, exclude=set(left) or None, warnings=False
        )
        if left and isinstance(made, dict):
            made |= {key: doc.__dict__[name] for name, key in left.items() if name in doc.__dict__}
        return made


class Writer:
    """Writes documents of some classes; a document of a subclass is written as the schema's class."""

    def __init__(self, models: Mapping[str, type[BaseModel]]) -> None:
        self._models = frozenset(models.values())
        self._layouts: dict[type, tuple[Layout, int]] = {}
        self.encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=self._hook(plain)).encode
        self.encode_secrets: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=self._hook(revealed)).encode

    def values(self, doc: Any) -> dict[str, Any]:
        """A document's fields, for msgpack; other values unchanged."""
        kind = type(doc)
        if kind is dict or not issubclass(kind, BaseModel):
            return doc  # type: ignore[no-any-return]  # a dict, or what its class will refuse
        layout, count = self._layouts.get(kind) or self._layout(kind)
        fields: dict[str, Any] = doc.__dict__
        return fields if layout.is_plain and len(fields) == count else layout.values(doc)

    def parts(
        self, values: Mapping[str, Any], tensor_names: Sequence[str], encode: Callable[[Any], bytes]
    ) -> bytes | Parts:
        """Writes a document's fields as msgpack for another process of this library, without copying large tensors.

        `encode` writes the other fields: `encode_secrets`, or its form that writes in pieces.
        """
        large = {}
        for name in tensor_names if isinstance(values, dict) else ():
            array = tensors.from_tensor(values.get(name))
            if array is not None and array.nbytes >= tensors.LARGE:
                large[name] = array
        if not large:
            return encode(values)
        small = encode({name: value for name, value in values.items() if name not in large})
        head = map_head(len(values)) + small[len(map_head(len(values) - len(large))) :]
        buffers: list[bytes | memoryview] = []
        for name, array in large.items():
            code, shape, data = tensors.pack_parts(array)
            size = struct.pack(">BIb", _EXT32, len(shape) + len(data), code)
            buffers += (head + self.encode_secrets(name) + size + shape, data)
            head = b""
        return Parts(buffers, len(buffers[0]))

    def json(self, doc: Any) -> Any:
        """Converts a document for JSON; `for_json` converts its nested values."""
        kind = type(doc)
        if kind is dict or kind is Rendered:
            return orjson.Fragment(doc.json) if kind is Rendered and doc.json else doc
        layout, count = self._layouts.get(kind) or self._layout(kind)
        fields: dict[str, Any] = doc.__dict__
        for name in layout.arrays:
            if type(fields.get(name)) is np.ndarray:
                tensors.numeric(fields[name])
        if layout.own_json:
            return layout.json(doc)
        return fields if len(fields) == count else layout.values(doc)

    def json_in_pieces(self, doc: Any) -> Any:
        """As `json`, for the writer that cuts large values."""
        return RawJson(doc.json) if type(doc) is Rendered and doc.json else self.json(doc)

    def for_json(self, value: Any) -> Any:
        """Converts a value that orjson does not know."""
        array = tensors.from_tensor(value)
        if array is not None:
            array = tensors.numeric(array)
            return array if array.ndim else array.item()
        if isinstance(value, RootModel):
            return value.root
        if isinstance(value, BaseModel):
            return self.json(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return base64.b64encode(value).decode()
        if isinstance(value, set | frozenset | deque):
            return list(value)
        return orjson.Fragment(value.json) if type(value) is RawJson else plain(value)

    def for_request(self, value: Any) -> Any:
        """As `for_json`, such that documents can be read again: no serializers, no exclusions, no hidden secrets."""
        if isinstance(value, BaseModel) and not isinstance(value, RootModel):
            return self.values(value)
        return value.get_secret_value() if isinstance(value, pydantic_facts.SECRETS) else self.for_json(value)

    def _hook(self, other: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Converts a value that msgspec does not know; `other` converts the remaining types."""

        def hook(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return msgspec.msgpack.Ext(*tensors.pack(value))
            if isinstance(value, str):  # docarray's ID and URLs: msgspec knows str itself only
                return str.__str__(value)
            if isinstance(value, bytes):
                return bytes(value)
            if isinstance(value, RootModel):
                return value.root
            if isinstance(value, BaseModel):
                return self.values(value)
            if isinstance(value, np.generic):
                return value.item()
            if isinstance(value, deque):
                return list(value)
            array = tensors.from_tensor(value)
            return other(value) if array is None else msgspec.msgpack.Ext(*tensors.pack(array))

        return hook

    def _layout(self, kind: type[BaseModel]) -> tuple[Layout, int]:
        """The layout of the schema's class, for the class itself and its subclasses."""
        known = next((base for base in kind.__mro__ if base in self._models), kind)
        layout = Layout.of(known)
        self._layouts[kind] = layout, len(layout.attributes)
        return self._layouts[kind]


def plain(value: Any) -> Any:
    """Converts a value for JSON with pydantic; an iterator may have a limited number of values, as it may be endless.

    Raises:
        ValueError: it has more. Whatever pydantic raises.
    """
    return to_jsonable_python(_listed(value) if isinstance(value, Iterator) else value)


def finite(value: Any) -> Any:
    """Replaces iterators in plain data by lists, at any depth; raises as `plain` does."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in dict.items(value)}
    if type(value) in (list, tuple):
        return type(value)(map(finite, value))
    return finite(_listed(value)) if isinstance(value, Iterator) else value


def _listed(values: Iterator[Any]) -> list[Any]:
    listed = [*islice(values, _MOST + 1)]
    if len(listed) > _MOST:
        raise ValueError(f"expected plain data, got an iterator of more than {_MOST:,} values")
    return listed


def map_head(count: int) -> bytes:
    """The head of a msgpack map of this many fields."""
    if count < 1 << 4:
        return bytes([_FIXMAP | count])
    return struct.pack(">BH", _MAP16, count) if count < 1 << 16 else struct.pack(">BI", _MAP32, count)


def list_head(count: int) -> bytes:
    """How msgpack begins a list of so many values."""
    if count < 1 << 4:
        return bytes([0x90 | count])
    return struct.pack(">BH", 0xDC, count) if count < 1 << 16 else struct.pack(">BI", 0xDD, count)


def revealed(value: Any) -> Any:
    """The value of a secret; of other values their plain form."""
    return value.get_secret_value() if isinstance(value, pydantic_facts.SECRETS) else plain(value)
