"""A DataRequest as it came, and its answer: by protobuf, or by hand where it is written as clients write it.

A client's requests differ in their ids and docs alone, most of them. So their ids and docs are cut out; what is left of
a header is taken apart once, by protobuf, and remembered.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.protobuf.entries import Odd, varint
from jina_asgi.protocols.protobuf.messages import HeaderProto
from jina_asgi.protocols.protobuf.requests import Asked
from jina_asgi.types import Result

_MAX_HEADERS = 1024  # that are remembered; none is longer than a length of one byte says
_ID = 4  # where an id begins: behind the tags and lengths of the header and of itself, a byte each


class Incoming:
    """One request; `asked` is what it asks for.

    Raises:
        InvalidRequest, TooLarge: as `requests.read`.
    """

    __slots__ = ("_front", "_message", "_raw", "asked")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        try:
            self.asked, self._front = _split(raw)
            self._message = None
        except (Odd, IndexError, UnicodeDecodeError, DecodeError):
            self._message = requests.read(raw)
            self.asked, self._front = requests.asked(self._message), b""

    @property
    def message(self) -> Any:
        """The whole of it."""
        if self._message is None:
            self._message = requests.read(self._raw)
        return self._message

    def answer(self, result: Result) -> bytes:
        """As `requests.answer`, which uses up the message."""
        if self._front and not result.results:
            return requests.completed(self._front, requests.written_docs(result.docs), result.trail)
        return requests.answer(self.message, result)


#: The endpoint and the target that the rest of a header names, behind the id.
_headers: dict[bytes, tuple[str, str]] = {}


def _split(raw: bytes) -> tuple[Asked, bytes]:
    """What a request asks for, and its bytes before the docs.

    Raises:
        Odd, IndexError, UnicodeDecodeError, DecodeError: it is protobuf's to read.
    """
    stop, end = _ID + raw[3], 2 + raw[1]  # of the id, and of the header
    if raw[0] != 0x0A or raw[2] != 0x0A or raw[1] > 127 or stop > end:
        raise Odd
    rest = raw[stop:end]
    named = _headers.get(rest) or _named(rest)
    data = end + 2 if raw[end] == 0x12 and raw[end + 1] == 0 else end  # behind parameters, where they are empty
    size, docs = varint(raw, data + 1)
    if raw[data] != 0x22 or raw[docs] != 0x0A or docs + size != len(raw):
        raise Odd
    size, docs = varint(raw, docs + 1)
    if docs + size != len(raw):
        raise Odd
    return Asked(named[0], raw[_ID:stop].decode(), {}, named[1], raw[docs:]), raw[:data]


def _named(rest: bytes) -> tuple[str, str]:
    """What the rest of a header names, from now on remembered; raises as `_split` does."""
    header = HeaderProto.FromString(rest)
    if header.request_id or header.HasField("status"):
        raise Odd
    named = requests.endpoint_of(header), header.target_executor
    if len(_headers) >= _MAX_HEADERS:
        _headers.clear()
    _headers[rest] = named
    return named
