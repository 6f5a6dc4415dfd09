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
from jina_asgi.protocols.protobuf.requests import RequestFields
from jina_asgi.settings import Limits
from jina_asgi.types import Result

_MAX_HEADERS = 1024  # that are remembered; none is longer than a length of one byte says


class ParsedRequest:
    """One request; `asked` is what it asks for.

    Raises:
        InvalidRequest, TooLarge: as `requests.read`.
    """

    __slots__ = ("_front", "_limits", "_message", "_raw", "asked")

    def __init__(self, raw: bytes, limits: Limits = requests.USUAL) -> None:
        self._raw, self._limits = raw, limits
        self._message: Any = None
        self._front: bytes | None = None  # what stands before the docs, and begins the answer
        try:
            self.asked, self._front = _split(raw)
        except (Odd, IndexError, UnicodeDecodeError, DecodeError):
            self._message = requests.read(raw, limits=limits)
            self.asked = requests.asked(self._message)

    @property
    def message(self) -> Any:
        """The whole of it."""
        if self._message is None:
            self._message = requests.read(self._raw, limits=self._limits)
        return self._message

    def answer(self, result: Result) -> bytes:
        """As `requests.answer`, which uses up the message."""
        if self._front is None or result.results:
            return requests.answer(self.message, result)
        return requests.completed(self._front, requests.written_docs(result.docs), result.trail)


#: The endpoint and the target that the rest of a header names, behind the id.
_headers: dict[bytes, tuple[str, str]] = {}


def _split(raw: bytes) -> tuple[RequestFields, bytes]:
    """What a request asks for, and its bytes before the docs.

    It is a header, which begins with an id; maybe empty parameters; and data, which hold docs alone:
    `0A length {0A length id, rest}`, `12 00`, `22 length {0A length docs}`.

    Raises:
        Odd, IndexError, UnicodeDecodeError, DecodeError: it is another, or broken, and protobuf's to read.
    """
    if raw[0] != 0x0A or raw[1] > 127 or raw[2] != 0x0A:
        raise Odd
    header_end, id_end = 2 + raw[1], 4 + raw[3]
    if id_end > header_end:
        raise Odd
    rest = raw[id_end:header_end]
    endpoint, target = _headers.get(rest) or _named(rest)
    data = header_end + 2 if raw[header_end] == 0x12 and raw[header_end + 1] == 0 else header_end
    data_size, data_begin = varint(raw, data + 1)
    docs_size, docs_begin = varint(raw, data_begin + 1)
    if raw[data] != 0x22 or raw[data_begin] != 0x0A or not data_begin + data_size == docs_begin + docs_size == len(raw):
        raise Odd
    return RequestFields(endpoint, raw[4:id_end].decode(), {}, target, raw[docs_begin:]), raw[:data]


def _named(rest: bytes) -> tuple[str, str]:
    """What the rest of a header names, from now on remembered; raises as `_split` does."""
    header = HeaderProto.FromString(rest)
    if header.request_id or header.HasField("status") or header.SerializeToString() != rest:
        raise Odd
    named = requests.endpoint_of(header), header.target_executor
    if len(_headers) >= _MAX_HEADERS:
        _headers.clear()
    _headers[rest] = named
    return named
