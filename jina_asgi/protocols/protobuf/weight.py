"""How many values a message holds, before protobuf makes a message of each: two bytes would become eighty.

Only what is large enough to hold too many is looked at, and only what may be many of them is taken apart. Looking costs
time as well, so that the fields that are passed on the way are counted too.
"""

from __future__ import annotations

from jina_asgi.errors import InvalidRequest, TooLarge

#: Values that the docs of one request may hold, and bytes of all in a request beside its docs.
MAX_VALUES, MAX_BESIDE = 2**21, 4 * 2**20
#: Fields of a request itself, and requests that may meet at a join.
MAX_FIELDS, MAX_REQUESTS = 2**16, 2**10
#: Fields that hold one value where protobuf's own writers write it: an entry, its key, its node, and what that holds.
_FIELDS = 4
_DEPTH = 100  # as protobuf's own
_Kind = dict[int, "_Kind"]
#: What stands within a message by its field's tag; a document and a dictionary look alike.
_LIST: _Kind = {}
_DOC: _Kind = {}
_DOCS: _Kind = {0x0A: _DOC}
_NODE: _Kind = {0x3A: _DOC, 0x42: _DOCS, 0x4A: _LIST, 0x52: _LIST, 0x5A: _LIST, 0x62: _DOC}
_LIST[0x0A] = _NODE
_DOC[0x0A] = {0x12: _NODE}


def check_docs(raw: bytes, limit: int = MAX_VALUES) -> None:
    """Refuse a DocListProto that holds more values than a request may, counted as its lists and mappings hold them.

    Raises:
        TooLarge: so it does. InvalidRequest: it nests too deep, or is broken.
    """
    if len(raw) // 2 <= limit or raw.count(b"\x0a") + raw.count(b"\x8a") <= limit:
        return  # a value takes two bytes or more, of which one begins its field
    try:
        _count(raw, limit)
    except IndexError:
        raise InvalidRequest("the docs are not protobuf: they end within a value") from None


def check_request(raw: bytes) -> None:
    """Refuse a DataRequestProto with too much in it beside its docs; raises as `check_docs` does."""
    if len(raw) > 2 * MAX_FIELDS:
        _fields_left(raw, MAX_FIELDS)


def check_requests(raw: bytes) -> None:
    """Refuse a DataRequestListProto of too many requests, or with too much beside their docs; raises as `check_docs`."""
    if len(raw) <= 2 * MAX_REQUESTS:
        return
    at, requests, fields = 0, 0, MAX_FIELDS
    try:
        while at < len(raw):
            _, start, at = _field(raw, at)
            requests += 1
            if requests > MAX_REQUESTS:
                raise TooLarge(f"expected at most {MAX_REQUESTS} requests that meet at a join")
            fields = _fields_left(raw[start:at], fields)
    except IndexError:
        raise InvalidRequest("the requests are not protobuf: they end within a field") from None


def _fields_left(raw: bytes, fields: int) -> int:
    """How many of some fields a DataRequestProto leaves; raises as `check_docs` does."""
    at, beside = 0, 0
    try:
        while at < len(raw):
            tag, _, after = _field(raw, at)
            beside += 0 if tag == 0x22 else after - at
            fields -= 1
            at = after
            if beside > MAX_BESIDE or fields < 0:
                raise TooLarge(
                    f"expected at most {MAX_BESIDE} bytes of parameters, routes and header, in {MAX_FIELDS} fields"
                )
    except IndexError:
        raise InvalidRequest("the request is not protobuf: it ends within a field") from None
    return fields


def _count(raw: bytes, limit: int) -> None:
    count, fields = 0, _FIELDS * limit
    open_messages = [(0, len(raw), _DOCS)]
    while open_messages:
        at, end, kind = open_messages.pop()
        while at < end:
            tag, size = raw[at], raw[at + 1]
            if tag < 128 and size < 128 and tag & 7 == 2:  # as most are
                start = at + 2
                after = start + size
            else:
                tag, start, after = _field(raw, at)
            within = kind.get(tag)
            at = after
            fields -= 1
            if within is None and fields >= 0:
                continue
            count += tag == 0x0A
            if count > limit or fields < 0:
                raise TooLarge(f"expected at most {limit} values in the docs of one request")
            if start < after and within is not None:
                open_messages += (at, end, kind), (start, after, within)
                break
        if len(open_messages) > _DEPTH:
            raise InvalidRequest("the docs are not protobuf: they nest too deep")


def _field(raw: bytes, at: int) -> tuple[int, int, int]:
    """The tag of a field, and where what it holds begins and ends; raises IndexError past the end."""
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
