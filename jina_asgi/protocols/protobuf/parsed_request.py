"""Parses a request, makes its call, and writes its answer: one DataRequest, or several that meet at a join.

Most requests of a client differ only in their ids and docs. So these are cut out, and the rest of a header is parsed once
and cached; a request that is encoded in another way is left to protobuf. Without this an echo over gRPC
takes 3% more of the server's time, whose goal is 0.85 of bare grpc.aio (tests/benchmarks/bench_grpc.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from jina_asgi.documents.codec import Codec, codec
from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.protobuf.documents import answer_buffers, wire
from jina_asgi.protocols.protobuf.fast_parser import Odd, too_many, varint
from jina_asgi.protocols.protobuf.messages import DataRequestList, HeaderProto
from jina_asgi.protocols.protobuf.requests import RequestFields
from jina_asgi.protocols.protobuf.routes import route_buffers
from jina_asgi.protocols.protobuf.size_guard import check_docs
from jina_asgi.settings import Limits
from jina_asgi.types import Call, Context, Docs, Endpoint, Result

_MAX_HEADERS = 1024  # the number of cached ones, each of at most 127 bytes


def calls_of(parts: Sequence[RequestFields], endpoint: Endpoint, context: Context, limits: Limits) -> list[Call]:
    """The calls of the requests that meet at a join; raises as `call_of`, for the docs of all of them together."""
    check_docs(b"".join([part.docs for part in parts]), limits)  # as one list, which they become
    made: list[Call] = []
    for part in parts:
        made.append(call_of(part, endpoint, context, limits))
        if sum(len(one.docs) for one in made) > limits.docs:
            raise too_many(limits.docs)
    return made


def call_of(fields: RequestFields, endpoint: Endpoint, context: Context, limits: Limits) -> Call:
    """The call of a request to an endpoint.

    Raises:
        InvalidRequest, InvalidDocs, TooLarge: as `DocsWire.read`.
    """
    reader = codec(endpoint.input)
    docs = Docs(reader, wire(reader).read(fields.docs, limits))
    return Call(endpoint.name, docs, fields.parameters, context, (), fields.target_executor)


class ParsedRequest:
    """One request; `fields` has its fields.

    Raises:
        InvalidRequest, TooLarge: as `requests.read`.
    """

    __slots__ = ("_front", "_limits", "_message", "_raw", "fields")

    def __init__(self, raw: bytes, limits: Limits = requests.USUAL) -> None:
        self._raw, self._limits = raw, limits
        self._message: Any = None
        self._front: bytes | None = None  # the bytes before the docs, which begin the answer
        try:
            self.fields, self._front = _split(raw)
        except (Odd, IndexError, UnicodeDecodeError, DecodeError):
            self._message = requests.read(raw, limits=limits)
            self.fields = requests.fields_of(self._message)

    @property
    def message(self) -> Any:
        """The whole request."""
        if self._message is None:
            self._message = requests.read(self._raw, limits=self._limits)
        return self._message

    def call(self, endpoint: Endpoint, context: Context) -> Call:
        """The request's call of an endpoint; raises as `call_of`."""
        return call_of(self.fields, endpoint, context, self._limits)

    def answer(self, result: Result) -> bytes:
        """As `requests.answer`, which changes the message."""
        if self._front is None or result.results:
            return requests.answer(self.message, result)
        return b"".join([self._front, *route_buffers(result.trail), *answer_buffers(result.docs)])


class JoinedRequest(ParsedRequest):
    """The requests of several nodes that make one call. `fields` and the answer are those of the first."""

    __slots__ = ("_names", "_parts")

    def __init__(self, messages: Sequence[Any], limits: Limits) -> None:
        self._message, self._limits, self._front = messages[0], limits, None
        self._parts = [requests.fields_of(message) for message in messages]
        self._names = [one.routes[-1].executor if one.routes else f"node{n}" for n, one in enumerate(messages)]
        self.fields = self._parts[0]

    def call(self, endpoint: Endpoint, context: Context) -> Call:
        """One call with the docs of all nodes one after another, and each node's own as its sources."""
        found = calls_of(self._parts, endpoint, context, self._limits)
        reader: Codec = codec(endpoint.input)
        sources = tuple((name, one.docs) for name, one in zip(self._names, found, strict=True))
        docs = reader.docs(reader.wrap([doc for one in found for doc in one.docs.typed]))
        first = found[0]
        return Call(first.endpoint, docs, first.parameters, context, sources, first.target_executor)


def parse_join(raw: bytes, limits: Limits) -> ParsedRequest:
    """Parses a DataRequestList; raises as `ParsedRequest`."""
    messages = requests.read(raw, DataRequestList, limits).requests
    if len(messages) > 1:
        return JoinedRequest(messages, limits)
    return ParsedRequest(messages[0].SerializeToString() if messages else b"", limits)


#: The endpoint and the target in the rest of a header, after the id.
_headers: dict[bytes, tuple[str, str]] = {}


def _split(raw: bytes) -> tuple[RequestFields, bytes]:
    """The fields of a request, and its bytes before the docs.

    It is a header, which begins with an id; possibly empty parameters; and data with docs only:
    `0A length {0A length id, rest}`, `12 00`, `22 length {0A length docs}`.

    Raises:
        Odd, IndexError, UnicodeDecodeError, DecodeError: it is encoded in another way, or broken: left to protobuf.
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
    """The endpoint and the target in the rest of a header; cached. Raises as `_split` does."""
    header = HeaderProto.FromString(rest)
    if header.request_id or header.HasField("status") or header.SerializeToString() != rest:
        raise Odd
    named = requests.endpoint_of(header), header.target_executor
    if len(_headers) >= _MAX_HEADERS:
        _headers.clear()
    _headers[rest] = named
    return named
