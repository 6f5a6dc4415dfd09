"""Answers Jina's requests: one, a list of them that meet at a join, and a stream. Bytes in, bytes out.

An Executor's error becomes an answer, with the request's own docs; so does a malformed message. Errors of
`problems.is_refusal` are raised instead, as nothing ran.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.errors import InvalidDocs, InvalidRequest
from jina_asgi.errors._raised import future_safe
from jina_asgi.protocols.problems import is_refusal
from jina_asgi.protocols.protobuf import requests, statuses
from jina_asgi.protocols.protobuf.messages import (
    DRY_RUN,
    ERROR,
    DataRequest,
    SingleDocumentRequest,
    StatusProto,
)
from jina_asgi.protocols.protobuf.parsed_request import ParsedRequest, call_of, parse_join
from jina_asgi.protocols.protobuf.requests import RequestFields
from jina_asgi.protocols.service import OpenedCall, Service
from jina_asgi.protocols.size_guard import PROTOBUF, are_large, is_heavy, is_large
from jina_asgi.settings import Limits
from jina_asgi.types import Endpoint, Ticket

P = ParamSpec("P")
T = TypeVar("T")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class CallerInfo(msgspec.Struct, frozen=True):
    """The caller of one RPC or socket.

    Attributes:
        headers: the metadata of an RPC, or the headers of a handshake.
        deadline: a time of `time.monotonic`.
        user: the identity from the host's own middleware, if there is no `auth` hook.
    """

    headers: Mapping[str, str]
    deadline: float | None = None
    user: Any = None


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
            if is_refusal(error):
                raise
            return await self._failed(DataRequest, error)
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
                return DataRequest()

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
            message = await _offloaded(heavy, requests.read, raw, SingleDocumentRequest, self.service.limits)
        except InvalidRequest as error:
            if is_refusal(error):
                raise
            yield await self._failed(SingleDocumentRequest, error)
            return
        begun = False
        try:
            fields = await _offloaded(heavy, requests.fields_of, message)
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
        return self.service.open(fields.endpoint, caller.headers, caller.user, deadline=caller.deadline)

    @staticmethod
    def _endpoint(opened: OpenedCall, fields: RequestFields) -> Endpoint | None:
        """The endpoint that answers; also sets the call's request id. None: the request is returned unchanged."""
        is_known = _REQUEST_ID.fullmatch(fields.request_id)
        opened.context.request_id = fields.request_id if is_known else os.urandom(16).hex()
        return None if fields.endpoint == DRY_RUN else opened.endpoint

    async def _failed(self, message: Callable[[], Any], error: BaseException, *, heavy: bool = False) -> EncodedAnswer:
        """The answer for an error, made of a message that may be `heavy`."""

        def encode() -> bytes:
            answer = statuses.failed(message(), error, expose=self.service.expose_errors)
            return bytes(answer.SerializeToString())

        return EncodedAnswer(await _offloaded(heavy, encode), True)


async def _offloaded(heavy: bool, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `work`; in a codec thread if it is `heavy`."""
    return await parse_in_thread(None, work, *args, **kwargs) if heavy else work(*args, **kwargs)
