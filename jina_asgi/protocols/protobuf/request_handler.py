"""Answers Jina's requests: one, a list of them that meet at a join, and a stream. Bytes in, bytes out.

An Executor's error becomes an answer, with the request's own docs; so does a malformed message. Errors of
`problems.is_refusal` are raised instead, as nothing ran.

Parses a request, makes its call, and writes its answer: one DataRequest, or several that meet at a join.

Most requests of a client differ only in their ids and docs. So these are cut out, and the rest of a header is parsed once
and cached; a request that is encoded in another way is left to protobuf. Without this an echo over gRPC
takes 3% more of the server's time, whose goal is 0.85 of bare grpc.aio (tests/benchmarks/bench_grpc.py).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec
from google.protobuf.message import DecodeError

from jina_asgi.concurrency.offload import parse_if, parse_in_thread
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.documents.codec import Codec, codec
from jina_asgi.errors import InvalidDocs, InvalidRequest
from jina_asgi.errors._raised import future_safe
from jina_asgi.protocols.problems import is_refusal
from jina_asgi.protocols.protobuf import requests, statuses
from jina_asgi.protocols.protobuf.documents import answer_buffers, wire
from jina_asgi.protocols.protobuf.fast_parser import Odd, too_many, varint
from jina_asgi.protocols.protobuf.messages import (
    DRY_RUN,
    ERROR,
    DataRequestList,
    HeaderProto,
    SingleDocumentRequest,
    StatusProto,
)
from jina_asgi.protocols.protobuf.requests import RequestFields
from jina_asgi.protocols.protobuf.size_guard import check_docs
from jina_asgi.protocols.protobuf.statuses import route_buffers
from jina_asgi.protocols.service import CallerInfo, OpenedCall, Service
from jina_asgi.protocols.size_guard import PROTOBUF, are_large, is_heavy, is_large
from jina_asgi.settings import Limits
from jina_asgi.types import Call, Context, Docs, Endpoint, Result, Ticket, random_id

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


P = ParamSpec("P")
T = TypeVar("T")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class EncodedAnswer(msgspec.Struct, frozen=True):
    """An answer as bytes.

    Attributes:
        failed: it holds an error.
        ticket: the call's place in the queue, to be closed when the answer has been sent.
    """

    raw: bytes
    failed: bool = False
    ticket: Ticket | None = None


class RequestHandler:
    """Answers the requests of one server."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def answer(
        self, raw: bytes, caller: CallerInfo, parse: Callable[[bytes, Limits], ParsedRequest] = ParsedRequest
    ) -> EncodedAnswer:
        """Answer one request, also a failed one; the answer keeps the call's place in the queue until it has been sent.

        Raises:
            The errors of `problems.is_refusal`: nothing ran.
        """
        heavy, limits = is_heavy(PROTOBUF, raw), self.service.limits
        try:
            request = await parse_in_thread(None, parse, raw, limits) if heavy else parse(raw, limits)
        except InvalidRequest as error:
            self.service.refused("", error, caller.method)
            if is_refusal(error):
                raise
            salvage = requests.salvaged_join if parse is parse_join else requests.salvaged
            return await self._failed(partial(salvage, raw), error)
        try:
            with await self._open(request.fields, caller) as opened:
                try:
                    endpoint, context = self._endpoint(opened, request.fields), opened.context
                    if endpoint is None:
                        return EncodedAnswer(request.message.SerializeToString())
                    opened.resize(len(raw))
                    if heavy:
                        call = await parse_in_thread(context.deadline, request.call, endpoint, context)
                    else:
                        call = request.call(endpoint, context)
                    if endpoint.kind == "stream":
                        raise InvalidDocs(f"{request.fields.endpoint} streams its answer; ask it with stream_doc")
                    result = await opened.runner.call(call)
                    large = heavy or is_large(result, PROTOBUF)
                    answer = await parse_in_thread(None, request.answer, result) if large else request.answer(result)
                    return EncodedAnswer(answer, False, opened.detach())
                except BaseException as error:
                    if is_cancel(error) or is_refusal(error):
                        raise
                    opened.failed(error)
                    failed = await self._failed(lambda: request.message, future_safe(error), heavy=heavy)
                    return EncodedAnswer(failed.raw, True, opened.detach())
        except BaseException as error:
            if is_cancel(error) or is_refusal(error):
                raise
            return await self._failed(lambda: request.message, future_safe(error), heavy=heavy)

    def join(self, raw: bytes, caller: CallerInfo) -> Awaitable[EncodedAnswer]:
        """Answer one call whose docs come from several nodes, in one request each; raises as `answer`."""
        return self.answer(raw, caller, parse_join)

    async def refused(self, raw: bytes, error: Exception) -> EncodedAnswer:
        """The answer that holds an error which `answer` raised, for protocols that send errors in answers only."""

        def message() -> Any:
            try:
                return requests.read(raw, limits=self.service.limits)
            except InvalidRequest:  # the answer holds that error
                return requests.salvaged(raw)

        return await self._failed(message, error, heavy=is_heavy(PROTOBUF, raw))

    def readiness(self) -> bytes:
        """Whether calls are answered now, as a StatusProto; begins to load if necessary."""
        self.service.start()
        status = StatusProto()
        if reason := self.service.unhealthy_reason():
            status.code, status.description = ERROR, reason
            status.exception.name = "NotReady"
            status.exception.args.append(reason)
        return bytes(status.SerializeToString())

    async def stream(self, raw: bytes, caller: CallerInfo) -> AsyncGenerator[EncodedAnswer, None]:
        """Answer one stream, one document in each message; an error is the last message. Raises as `answer`, at the first step."""
        heavy = is_heavy(PROTOBUF, raw)
        try:
            message = await parse_if(heavy, None, requests.read, raw, SingleDocumentRequest, self.service.limits)
        except InvalidRequest as error:
            self.service.refused("", error, caller.method)
            if is_refusal(error):
                raise
            yield await self._failed(partial(requests.salvaged, raw, SingleDocumentRequest), error)
            return
        begun = False
        try:
            fields = await parse_if(heavy, None, requests.fields_of, message)
            with await self._open(fields, caller) as opened:
                endpoint = self._endpoint(opened, fields)
                if endpoint is None or endpoint.kind != "stream":
                    raise InvalidDocs(f"{fields.endpoint} is no streaming endpoint; it answers post")
                opened.resize(len(raw))
                read = partial(call_of, fields, endpoint, opened.context, self.service.limits)
                call = await parse_in_thread(opened.context.deadline, read) if heavy else read()
                step = requests.stepped(message)
                async with aclosing(opened.runner.stream(call)) as steps:
                    async for docs in steps:
                        begun = True
                        large = are_large(docs, PROTOBUF)
                        yield EncodedAnswer(await parse_in_thread(None, step, docs) if large else step(docs))
        except GeneratorExit:
            raise
        except BaseException as error:
            if is_cancel(error) or (is_refusal(error) and not begun):
                raise
            yield await self._failed(lambda: message, future_safe(error), heavy=heavy)

    def _open(self, fields: RequestFields, caller: CallerInfo) -> Awaitable[OpenedCall]:
        headers, user, deadline = caller.headers, caller.user, caller.deadline
        return self.service.open(fields.endpoint, headers, user, deadline=deadline, method=caller.method)

    @staticmethod
    def _endpoint(opened: OpenedCall, fields: RequestFields) -> Endpoint | None:
        """The endpoint that answers; also sets the call's request id. None: the request is returned unchanged."""
        is_known = _REQUEST_ID.fullmatch(fields.request_id)
        opened.context.request_id = fields.request_id if is_known else random_id()
        return None if fields.endpoint == DRY_RUN else opened.endpoint

    async def _failed(self, message: Callable[[], Any], error: BaseException, *, heavy: bool = False) -> EncodedAnswer:
        """The answer for an error, made of a message that may be `heavy`."""

        def encode() -> bytes:
            return statuses.failed(message(), error, expose=self.service.expose_errors)

        return EncodedAnswer(await parse_if(heavy, None, encode), True)
