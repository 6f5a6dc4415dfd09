"""Parses a DocListProto to one dict of plain values for each document, faster than with protobuf's messages.

Each entry of a document is expected to look like an earlier one at its place: equal bytes around a payload of equal length.
Such an entry costs two comparisons; any other is parsed by `entries`, and remembered; an entry that protobuf's own writers
would write in another way is left to protobuf. Without this an echo over gRPC takes 3% more of the server's time, whose
goal is 0.85 of bare grpc.aio, and 64 vectors are read in 2.4 times the time (tests/benchmarks/bench_grpc.py).
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from jina_asgi.errors import InvalidDocs, InvalidRequest, TooLarge
from jina_asgi.protocols.protobuf import entries, messages
from jina_asgi.protocols.protobuf.entries import Entry, Odd, varint
from jina_asgi.protocols.protobuf.node_reader import NodeReader
from jina_asgi.protocols.protobuf.size_guard import LIGHT, check_docs
from jina_asgi.settings import Limits
from jina_asgi.types import Schema

#: The cached places in a document, and forms of an entry at each. Documents with more entries are left to protobuf, which
#: is slower for few and faster for millions.
_MAX_PLACES, _MAX_FORMS = 64, 256
_BROKEN = (DecodeError, UnicodeDecodeError, IndexError)


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
        return row if at == end else self._document(messages.DocProto.FromString(raw[start:end]))

    def _entry(self, raw: bytes, at: int, end: int, row: dict[str, Any], forms: dict[bytes, Entry]) -> int:
        """Parse an entry of a new form, cache the form, and return the entry's end."""
        name, begin, stop = entries.bounds(raw, at, end)
        field = self._nodes.field(self._name, name)
        form = entries.form(raw, at, begin, stop, name, known=field is not None)
        if form is None:
            node = messages.NodeProto.FromString(raw[begin:stop])
            if field is not None:
                row[name] = self._nodes.value(node, field)
            return stop
        _, head, tail, before, count, make = form
        if make is not None:
            row[name] = make(raw, at + before, at + before + count)
        if len(head) + len(tail) <= entries.MAX_AROUND:
            if len(forms) >= _MAX_FORMS:
                forms.clear()
            forms[raw[at : at + 5]] = form
        return stop

    def _unusual(self, raw: bytes, limit: int) -> list[dict[str, Any]]:
        """As `rows`, for a message with other fields than documents, or a broken one."""
        try:
            docs = messages.DocListProto.FromString(raw).docs
        except DecodeError as error:
            raise broken(error) from None
        if len(docs) > limit:
            raise too_many(limit)
        rows: list[dict[str, Any]] = []
        try:
            for doc in docs:
                rows.append(self._document(doc))
        except ValueError as error:
            raise lying(error, len(rows)) from None
        return rows

    def _document(self, message: Any) -> dict[str, Any]:
        return self._nodes.document(message, self._name)


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
