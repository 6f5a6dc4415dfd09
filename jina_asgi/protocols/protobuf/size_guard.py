"""Counts the values of a message before protobuf parses it, as two bytes can become eighty in memory.

Only messages that are large enough for too many values are visited, and only fields that may have many are parsed. As
visiting takes time too, the visited fields also count.
"""

from __future__ import annotations

from jina_asgi.errors import InvalidRequest, TooLarge
from jina_asgi.settings import Limits

#: Bytes of a request without its docs.
MAX_BESIDE = 4 * 2**20
#: The number of values in protobuf's lists and mappings, also numbers, that count as one of `Limits.values`.
LIGHT = 8
#: The values that a document counts as: it becomes several objects.
_DOCUMENT = 32
#: The limits of a request's own fields, and of requests that meet at a join.
MAX_FIELDS, MAX_REQUESTS = 2**16, 2**10
#: The fields that protobuf's own writers use for one value: an entry, its key, its node, and its content.
_FIELDS = 4
_DATA, _PARAMETERS = 0x22, 0x12  # the tags of their fields in a request
_DEPTH = 100  # as protobuf's own
_Kind = dict[int, "_Kind"]
#: The messages within a message by their field's tag; a document and a dictionary look alike.
_LIST: _Kind = {}
_DOC: _Kind = {}
_DOCS: _Kind = {0x0A: _DOC}
_NODE: _Kind = {0x3A: _DOC, 0x42: _DOCS, 0x4A: _LIST, 0x52: _LIST, 0x5A: _LIST, 0x62: _DOC}
_LIST[0x0A] = _NODE
_DOC[0x0A] = {0x12: _NODE}
#: The same within parameters.
_STRUCT: _Kind = {}
_VALUES: _Kind = {}
_VALUE: _Kind = {0x2A: _STRUCT, 0x32: _VALUES}
_STRUCT[0x0A] = {0x12: _VALUE}
_VALUES[0x0A] = _VALUE


def check_docs(raw: bytes, limits: Limits) -> None:
    """Check that a DocListProto has no more values in lists and mappings than a request may have.

    Raises:
        TooLarge: it has more. InvalidRequest: it nests too deep, or is broken.
    """
    limit = LIGHT * limits.values
    if len(raw) // 2 <= limit or raw.count(b"\x0a") + raw.count(b"\x8a") <= limit:
        return  # a value takes two bytes or more, of which one begins its field
    try:
        _count(raw, limit, _DOCS)
    except _TooMany:
        raise _refusal(limit, "docs") from None
    except IndexError:
        raise InvalidRequest("the docs are not protobuf: they end within a value") from None


def check_request(raw: bytes, limits: Limits) -> None:
    """Check the size of a DataRequestProto without its docs; raises as `check_docs` does."""
    if len(raw) > 2 * min(MAX_FIELDS, limits.parameters):
        _Beside(limits).take(raw)


def check_requests(raw: bytes, limits: Limits) -> None:
    """Check the number of requests in a DataRequestListProto, and their size without docs; raises as `check_docs`."""
    if len(raw) <= 2 * min(MAX_REQUESTS, limits.parameters):
        return
    at, requests, beside = 0, 0, _Beside(limits)
    try:
        while at < len(raw):
            _, start, at = field_at(raw, at)
            requests += 1
            if requests > MAX_REQUESTS:
                raise TooLarge(f"expected at most {MAX_REQUESTS} requests that meet at a join")
            beside.take(raw[start:at])
    except IndexError:
        raise InvalidRequest("the requests are not protobuf: they end within a field") from None


class _Beside:
    """The remaining size besides the docs of one request, or of all that meet at a join."""

    def __init__(self, limits: Limits) -> None:
        self._limit = self._values = limits.parameters
        self._fields, self._bytes = MAX_FIELDS, MAX_BESIDE

    def take(self, raw: bytes) -> None:
        """Count a DataRequestProto; raises as `check_docs` does."""
        at = 0
        try:
            while at < len(raw):
                tag, start, after = field_at(raw, at)
                self._bytes -= 0 if tag == _DATA else after - at
                self._fields -= 1
                at = after
                if self._bytes < 0 or self._fields < 0:
                    raise TooLarge(
                        f"expected at most {MAX_BESIDE} bytes of parameters, routes and header, in {MAX_FIELDS} fields"
                    )
                if tag == _PARAMETERS:
                    self._values -= _count(raw[start:after], self._values, _STRUCT)
        except _TooMany:
            raise _refusal(self._limit, "parameters") from None
        except IndexError:
            raise InvalidRequest("the request is not protobuf: it ends within a field") from None


class _TooMany(Exception):  # an event, which the caller names
    """There are more values than allowed."""


def _refusal(limit: int, named: str) -> TooLarge:
    return TooLarge(f"expected at most {limit} values in the {named} of one request; `limits` of JinaASGI raises this")


def _count(raw: bytes, limit: int, kind: _Kind) -> int:
    """Counts the values of a message; raises _TooMany, IndexError past its end, or InvalidRequest."""
    count, fields = 0, _FIELDS * limit
    open_messages = [(0, len(raw), kind)]
    while open_messages:
        at, end, kind = open_messages.pop()
        while at < end:
            tag, size = raw[at], raw[at + 1]
            if tag < 128 and size < 128 and tag & 7 == 2:  # as most are
                start = at + 2
                after = start + size
            else:
                tag, start, after = field_at(raw, at)
            within = kind.get(tag)
            at = after
            fields -= 1
            if within is None and fields >= 0:
                continue
            count += _DOCUMENT if within is _DOC else tag == 0x0A
            if count > limit or fields < 0:
                raise _TooMany
            if start < after and within is not None:
                open_messages += (at, end, kind), (start, after, within)
                break
        if len(open_messages) > _DEPTH:
            raise InvalidRequest("not protobuf: it nests too deep")
    return count


def field_at(raw: bytes, at: int) -> tuple[int, int, int]:
    """The tag of a field, and the start and end of its content; raises IndexError past the end."""
    tag, at = _varint(raw, at)
    kind = tag & 7
    if kind == 0:
        return tag, at, _varint(raw, at)[1]
    if kind == 2:
        size, at = _varint(raw, at)
    elif kind in (1, 5):
        size = 8 if kind == 1 else 4
    else:
        raise InvalidRequest("a message this large may hold no groups")
    if at + size > len(raw):
        raise IndexError(at)
    return tag, at, at + size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError(at)
