"""Parses a DocListProto to one dict of plain values for each document, faster than with protobuf's messages.

Each entry of a document is expected to look like an earlier one at its place: equal bytes around a payload of equal length.
Such an entry costs two comparisons; the form of any other is parsed, and remembered. An entry is `0A length, 0A length name,
12 length node`; a node is one value and, after it, docarray's name of its type. What protobuf's own writers would write in
another way is `Odd`, and left to protobuf. Without this an echo over gRPC takes 3% more of the server's time, whose
goal is 0.85 of bare grpc.aio, and 64 vectors are read in 2.4 times the time (tests/benchmarks/bench_grpc.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from jina_asgi.documents import msgpack, tensors
from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge
from jina_asgi.protocols.protobuf import messages
from jina_asgi.protocols.protobuf.node_reader import NodeReader
from jina_asgi.protocols.protobuf.size_guard import LIGHT, check_docs
from jina_asgi.settings import Limits
from jina_asgi.types import Schema

#: The cached places in a document, and forms of an entry at each. Documents with more entries are left to protobuf, which
#: is slower for few and faster for millions.
_MAX_PLACES, _MAX_FORMS = 64, 256
_BROKEN = (DecodeError, UnicodeDecodeError, IndexError)

#: A form is cached if the bytes around its payload are at most this many.
_MAX_AROUND = 512
_MAX_VARINT = 10
_float = struct.Struct("<d").unpack_from
Make = Callable[[bytes, int, int], Any]


class Odd(Exception):  # an outcome, and no error
    """Not encoded as protobuf's own writers do."""


#: The form of an entry: its name, the bytes before and after its payload, the payload's place and length, and what
#: makes the value of the payload between two places (None: the document has no such field). A plain tuple, which
#: unpacks in half the time of a named one.
Entry = tuple[str, bytes, bytes, int, int, Make | None]


class Scanner:
    """The cached forms of the documents of one schema; thread-safe."""

    def __init__(self, schema: Schema) -> None:
        self._name, self._nodes = schema.name, NodeReader(schema)
        self._places: list[dict[bytes, Entry]] = [{} for _ in range(_MAX_PLACES)]

    def rows(self, raw: bytes, limits: Limits) -> list[dict[str, Any]]:
        """Parses the documents of a DocListProto.

        Raises:
            InvalidRequest: it is malformed. InvalidDocs: a tensor's data does not match its shape. TooLarge: there are more
            documents or values than `limits` allows.
        """
        if len(raw) > 2 * LIGHT * limits.values:  # a value takes two bytes or more
            check_docs(raw, limits)
        limit = limits.docs
        rows: list[dict[str, Any]] = []
        at, size = 0, len(raw)
        try:
            while at < size:
                if raw[at] != 0x0A:
                    return self._unusual(raw, limit)
                length, at = raw[at + 1], at + 2
                if length > 127:
                    length, at = varint(raw, at - 1)
                end = at + length
                if end > size:
                    raise InvalidRequest("the docs are not protobuf: they end within a document")
                if len(rows) == limit:
                    raise too_many(limit)
                rows.append(self.row(raw, at, end))
                at = end
        except Odd:
            return self._unusual(raw, limit)
        except _BROKEN as error:
            raise broken(error) from None
        except ValueError as error:
            raise lying(error, len(rows)) from None
        return rows

    def row(self, raw: bytes, start: int, end: int) -> dict[str, Any]:
        """Parses the DocProto between two places; raises as protobuf does, or IndexError."""
        row: dict[str, Any] = {}
        at, startswith = start, raw.startswith
        try:
            for forms in self._places:
                if at == end:
                    return row
                form = forms.get(raw[at : at + 5])
                if form is not None:
                    name, head, tail, before, count, make = form
                    begin = at + before
                    stop = begin + count
                    after = stop + len(tail)
                    if after <= end and raw[at:begin] == head and (not tail or startswith(tail, stop)):
                        if make is not None:
                            row[name] = make(raw, begin, stop)
                        at = after
                        continue
                at = self._entry(raw, at, end, row, forms)
        except (Odd, IndexError):
            at = -1
        return row if at == end else self._nodes.read_document(raw, start, end, self._name)

    def _entry(self, raw: bytes, at: int, end: int, row: dict[str, Any], forms: dict[bytes, Entry]) -> int:
        """Parse an entry of a new form, cache the form, and return the entry's end."""
        name, begin, stop = _bounds(raw, at, end)
        field = self._nodes.field(self._name, name)
        form = _form(raw, at, begin, stop, name, known=field is not None)
        if form is None:
            assert field is not None  # unknown ones have a form
            row[name] = self._nodes.read(raw, begin, stop, field)
            return stop
        _, head, tail, before, count, make = form
        if make is not None:
            row[name] = make(raw, at + before, at + before + count)
        if len(head) + len(tail) <= _MAX_AROUND:
            if len(forms) >= _MAX_FORMS:
                forms.clear()
            forms[raw[at : at + 5]] = form
        return stop

    def _unusual(self, raw: bytes, limit: int) -> list[dict[str, Any]]:
        """As `rows`, for a message with other fields than documents, or a broken one."""
        rows: list[dict[str, Any]] = []
        try:
            for row in self._nodes.documents(raw, 0, len(raw), self._name):
                if len(rows) == limit:
                    raise too_many(limit)
                rows.append(row)
        except _BROKEN as error:
            raise broken(error) from None
        except ValueError as error:
            raise lying(error, len(rows)) from None
        return rows


def too_many(limit: int) -> TooLarge:
    """The error for more documents than a request may have."""
    return TooLarge(f"expected at most {limit} docs; the option `limits` of JinaASGI raises this")


def broken(error: Exception) -> InvalidRequest:
    """The error for bytes that are not this message."""
    return InvalidRequest(f"the docs are not protobuf: {str(error) or 'they end within a value'}")


def lying(error: Exception, index: int) -> InvalidDocs:
    """The error for a tensor whose data does not match its shape and dtype."""
    return InvalidDocs(
        "a tensor's data does not match its shape and dtype",
        [{"type": "value_error", "loc": [index], "msg": str(error)}],
    )


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """Reads a length, and returns its end.

    Raises:
        Odd: it has more than four bytes. IndexError: `raw` ends within it.
    """
    value = raw[at]
    if value < 128:
        return value, at + 1
    value &= 127
    for shift in (7, 14, 21):
        at += 1
        byte = raw[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
    raise Odd


def _bounds(raw: bytes, at: int, end: int) -> tuple[str, int, int]:
    """The name of the entry at a place, and the start and end of its node.

    Raises:
        Odd, IndexError: it is not an entry, or not within `end`. UnicodeDecodeError: its name is not text.
    """
    if raw[at] != 0x0A:
        raise Odd
    length, key = varint(raw, at + 1)
    stop = key + length
    if stop > end or raw[key] != 0x0A:
        raise Odd
    length, key = varint(raw, key + 1)
    node = key + length
    if node >= stop or raw[node] != 0x12:
        raise Odd
    length, begin = varint(raw, node + 1)
    if begin + length != stop:
        raise Odd
    return raw[key:node].decode(), begin, stop


def _form(raw: bytes, at: int, begin: int, stop: int, name: str, *, known: bool) -> Entry | None:
    """The form of an entry, by the places of the entry and of its node; None if the value is not a simple one.

    Args:
        known: the document has this field; values of unknown fields are not read.

    Raises:
        ValueError: a tensor's size is wrong.
    """
    if not known:
        return name, raw[at:begin], b"", begin - at, stop - begin, None
    found = _payload(raw, begin, stop)
    if found is None:
        return None
    start, end, after, make = found
    if after != stop:  # only its type is there
        if raw[after] != 0x6A:
            return None
        length, text = varint(raw, after + 1)
        if text + length != stop:
            return None
        raw[text:stop].decode()  # protobuf refuses invalid text
    return name, raw[at:start], raw[end:stop], start - at, end - start, make


def _payload(raw: bytes, begin: int, stop: int) -> tuple[int, int, int, Make] | None:
    """The start and end of a node's payload, the end of its value, and the function that makes the value."""
    if begin == stop:
        return begin, stop, stop, _none
    tag = raw[begin]
    if tag in (0x0A, 0x2A):
        length, start = varint(raw, begin + 1)
        end = start + length
        return (start, end, end, _text if tag == 0x0A else _blob) if end <= stop else None
    if tag == 0x19:
        end = begin + 9
        return (begin + 1, end, end, _number) if end <= stop else None
    if tag in (0x10, 0x20):
        end = begin + 1
        while raw[end] >= 128 and end < stop:
            end += 1
        end += 1
        return (begin + 1, end, end, _integer if tag == 0x10 else _truth) if end <= stop else None
    return _tensor(raw, begin, stop) if tag == 0x32 else None


def _tensor(raw: bytes, begin: int, stop: int) -> tuple[int, int, int, Make] | None:
    """As `_payload`, for a dense array with a buffer that is not empty, before its shape and dtype."""
    length, array = varint(raw, begin + 1)
    after = array + length
    if after > stop or length == 0 or raw[array] != 0x0A:
        return None
    length, dense = varint(raw, array + 1)
    if length == 0 or dense + length != after or raw[dense] != 0x0A:
        return None
    length, start = varint(raw, dense + 1)
    end = start + length
    if end > after:
        return None
    rest = messages.DenseNdArrayProto.FromString(raw[end:after])
    if rest.buffer:
        return None
    return start, end, after, tensors.of_named(rest.dtype, rest.shape, length)


def _none(_raw: bytes, _start: int, _end: int) -> None:
    return None


def _text(raw: bytes, start: int, end: int) -> str:
    return raw[start:end].decode() if end - start <= msgpack.PIECE else msgpack.text(memoryview(raw)[start:end])


def _blob(raw: bytes, start: int, end: int) -> bytes:
    return raw[start:end]


def _number(raw: bytes, start: int, _end: int) -> float:
    value: float = _float(raw, start)[0]
    return value


def _integer(raw: bytes, start: int, end: int) -> int:
    value = _varint64(raw, start, end) & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _truth(raw: bytes, start: int, end: int) -> bool:
    return _varint64(raw, start, end) != 0


def _varint64(raw: bytes, start: int, end: int) -> int:
    """The number that these bytes encode.

    Raises:
        Odd: they are not exactly one number.
    """
    value = 0
    last = end - 1
    if last - start >= _MAX_VARINT:
        raise Odd
    for place in range(start, last):
        byte = raw[place]
        if byte < 128:
            raise Odd
        value |= (byte & 127) << 7 * (place - start)
    value |= raw[last] << 7 * (last - start)
    if raw[last] >= 128 or value >> 64:
        raise Odd
    return value
