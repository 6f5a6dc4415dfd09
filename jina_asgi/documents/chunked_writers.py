"""Writes large values as JSON or msgpack in pieces, so that other threads run in between: an encoder holds the GIL until
it has written the whole value.

Small values go to the encoder as they are; large lists, mappings, texts, buffers and tensors are cut.
"""

from __future__ import annotations

import base64
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from pydantic import BaseModel, RootModel

from jina_asgi.documents import tensors
from jina_asgi.documents._sizes import JSON, is_large
from jina_asgi.documents.writers import RawJson, list_head, map_head
from jina_asgi.errors._shown import safe_str

#: The size of a piece, as in `_sizes`; the numbers, characters and bytes that are written in one call.
_PIECE = 2**19
_NUMBERS, _CHARACTERS, _BYTES = 2**14, 2**17, 3 * 2**18
#: The number of parts of a list that is too large for one piece.
_PARTS = 8
#: Below this level values go to the encoder whole: it has a limit of its own for nesting.
_DEEPEST = 64


class Pieces(ABC):
    """Writes values in pieces with `encode`; `plain` converts a value of a type that `encode` does not know."""

    factor = 1

    def __init__(self, encode: Callable[[Any], bytes], plain: Callable[[Any], Any]) -> None:
        self._encode, self._plain = encode, plain

    def write(self, value: Any) -> bytes:
        """Writes a value as `encode` would; raises its errors."""
        if not is_large([value], _PIECE, self.factor):
            return self._encode(value)
        out: list[bytes] = []
        self._write(value, out, 0)
        return b"".join(out)  # lets other threads run, as all of them are bytes

    def _write(self, value: Any, out: list[bytes], depth: int) -> None:
        if depth >= _DEEPEST or not is_large([value], _PIECE, self.factor):
            out.append(self._encode(value))  # which refuses a value that contains itself
        elif isinstance(value, RawJson):
            out.append(value.json)
        elif isinstance(value, str):
            self._text(value, out)
        elif isinstance(value, dict):
            self._mapping(value, out, depth + 1)
        elif isinstance(value, list | tuple):
            self._list(value, out, depth + 1)
        elif isinstance(value, bytes | bytearray | memoryview):
            self._buffer(memoryview(value), out)
        elif isinstance(value, set | frozenset | deque):
            self._list(list(value), out, depth + 1)
        elif (array := tensors.from_tensor(value)) is not None:
            self._tensor(array, out)
        else:
            self._write(value.root if isinstance(value, RootModel) else self._plain(value), out, depth + 1)

    @abstractmethod
    def _text(self, value: str, out: list[bytes]) -> None: ...

    @abstractmethod
    def _buffer(self, value: memoryview, out: list[bytes]) -> None: ...

    @abstractmethod
    def _tensor(self, array: Any, out: list[bytes]) -> None: ...

    @abstractmethod
    def _mapping(self, value: dict[Any, Any], out: list[bytes], depth: int) -> None: ...

    @abstractmethod
    def _list(self, value: Sequence[Any], out: list[bytes], depth: int) -> None: ...

    def _cut(self, items: Any, one: Callable[[Any], None], many: Callable[[Any], None]) -> None:
        """Groups items of a list or a mapping into pieces; an item larger than a piece is alone."""
        if len(items) == 1:
            one(items)
            return
        step = max(1, min(_NUMBERS, len(items) // _PARTS))
        entries = iter(dict.items(items)) if isinstance(items, dict) else None
        for start in range(0, len(items), step):
            # iterated, not listed: millions of tuples keep the garbage collector busy
            part = items[start : start + step] if entries is None else dict(islice(entries, step))
            if not is_large(part, _PIECE, self.factor):
                many(part)
            else:
                self._cut(part, one, many)


class JsonPieces(Pieces):
    """Writes JSON as orjson does; a piece of a list or a mapping is the text within its brackets."""

    factor = JSON

    def _text(self, value: str, out: list[bytes]) -> None:
        out.append(b'"')
        out += [self._encode(value[start : start + _CHARACTERS])[1:-1] for start in range(0, len(value), _CHARACTERS)]
        out.append(b'"')

    def _buffer(self, value: memoryview, out: list[bytes]) -> None:
        out.append(b'"')
        out += [base64.b64encode(value[start : start + _BYTES]) for start in range(0, len(value), _BYTES)]
        out.append(b'"')

    def _tensor(self, array: Any, out: list[bytes]) -> None:
        self._numbers(tensors.numeric(array), out)

    def _numbers(self, array: Any, out: list[bytes]) -> None:
        if array.size <= _NUMBERS:
            out.append(self._encode(array))
            return
        rows = max(1, _NUMBERS * len(array) // array.size)
        out.append(b"[")
        for start in range(0, len(array), rows):
            if start:
                out.append(b",")
            part = array[start : start + rows]
            if array.ndim == 1 or part.size <= _NUMBERS:
                out.append(self._encode(part)[1:-1])
            else:
                self._numbers(part[0], out)
        out.append(b"]")

    def _mapping(self, value: dict[Any, Any], out: list[bytes], depth: int) -> None:
        def one(item: dict[Any, Any]) -> None:
            ((key, inner),) = item.items()
            out.append(self._encode({key: None})[1:-5])
            self._write(inner, out, depth)
            out.append(b",")

        def many(items: dict[Any, Any]) -> None:
            out.append(self._encode(items)[1:-1])
            out.append(b",")

        out.append(b"{")
        self._cut(value, one, many)
        out[-1] = b"}"

    def _list(self, value: Sequence[Any], out: list[bytes], depth: int) -> None:
        def one(item: Sequence[Any]) -> None:
            self._write(item[0], out, depth)
            out.append(b",")

        def many(items: Sequence[Any]) -> None:
            out.append(self._encode(items)[1:-1])
            out.append(b",")

        out.append(b"[")
        self._cut(_listed(value), one, many)
        out[-1] = b"]"


class PackedPieces(Pieces):
    """Writes msgpack as msgspec does; a piece of a list or a mapping is the bytes after its head."""

    def _text(self, value: str, out: list[bytes]) -> None:
        parts = [value[start : start + _CHARACTERS].encode() for start in range(0, len(value), _CHARACTERS)]
        out.append(struct.pack(">BI", 0xDB, sum(map(len, parts))))
        out += parts

    def _buffer(self, value: memoryview, out: list[bytes]) -> None:
        out.append(struct.pack(">BI", 0xC6, value.nbytes))
        _copy(value, out)

    def _tensor(self, array: Any, out: list[bytes]) -> None:
        code, shape, data = tensors.pack_parts(array)
        out.append(struct.pack(">BIb", 0xC9, len(shape) + len(data), code) + shape)
        _copy(data, out)

    def _mapping(self, value: dict[Any, Any], out: list[bytes], depth: int) -> None:
        def one(item: dict[Any, Any]) -> None:
            ((key, inner),) = item.items()
            out.append(self._encode(key))
            self._write(inner, out, depth)

        def many(items: dict[Any, Any]) -> None:
            out.append(self._encode(items)[len(map_head(len(items))) :])

        out.append(map_head(len(value)))
        self._cut(value, one, many)

    def _list(self, value: Sequence[Any], out: list[bytes], depth: int) -> None:
        def many(items: Sequence[Any]) -> None:
            out.append(self._encode(items)[len(list_head(len(items))) :])

        out.append(list_head(len(value)))
        self._cut(_listed(value), lambda item: self._write(item[0], out, depth), many)


def _listed(value: Sequence[Any]) -> Sequence[Any]:
    """A list or a tuple whose slices are lists or tuples, not of a subclass."""
    if type(value) is list or type(value) is tuple:
        return value
    return [*list.__iter__(value)] if isinstance(value, list) else [*value]


def _copy(data: memoryview, out: list[bytes]) -> None:
    """Appends bytes in pieces: joining objects of other types holds the GIL."""
    data = data.cast("B")
    out += [bytes(data[start : start + _BYTES]) for start in range(0, len(data), _BYTES)]


ENCODING_ERRORS = (TypeError, ValueError, OverflowError, AttributeError, RecursionError)


def explain_unencodable(
    value: Any, error: BaseException, write: Callable[[Any], Any], fields: Callable[[Any], Any], *, own: bool = True
) -> str:
    """Says which part of a value cannot be written, and why: "data.0.vector: a tensor of dtype ...".

    Args:
        value: the value.
        error: the error of writing it.
        write: writes a part of it.
        fields: returns the fields of a document.
        own: use the error of writing the part; else use `error`.
    """
    place: list[str] = []
    found = True
    while found and len(place) < _DEEPEST:
        found = False
        for key, part in _parts(value, fields):
            try:
                write(part)
            except ENCODING_ERRORS as raised:
                place.append(str(key))
                value, error, found = part, raised if own else error, True
                break
    why = safe_str(error.__cause__ or error)
    return f"{'.'.join(place)}: {why}" if place else why


def _parts(value: Any, fields: Callable[[Any], Any]) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, BaseModel):
        value = fields(value)
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()
