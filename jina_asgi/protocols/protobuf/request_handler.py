"""Answers Jina's requests: one, a list of them that meet at a join, and a stream. Bytes in, bytes out.

An Executor's error becomes an answer, with the request's own docs; so does what is no message at all. Errors that
`problems.is_refusal` names are raised instead: nothing ran.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, ParamSpec, TypeVar

import msgspec

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.documents.codec import Codec, codec
from jina_asgi.errors import InvalidDocs, InvalidRequest
from jina_asgi.errors._raised import future_safe
from jina_asgi.protocols.problems import is_refusal
from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.protobuf.messages import (
    DRY_RUN,
    ERROR,
    DataRequest,
    DataRequestList,
    SingleDocumentRequest,
    StatusProto,
)
from jina_asgi.protocols.protobuf.parsed_request import ParsedRequest
from jina_asgi.protocols.service import OpenedCall, Service
from jina_asgi.protocols.size_guard import PROTOBUF, are_large, is_heavy, is_large
from jina_asgi.types import Call, Context, Endpoint, Ticket

P = ParamSpec("P")
T = TypeVar("T")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class CallerInfo(msgspec.Struct, frozen=True):
    """The caller of one RPC or socket.

    Attributes:
        headers: the metadata of an RPC, or the handshake's headers.
        deadline: on `time.monotonic`'s clock.
        user: the caller as the host's own middleware knows it, where there is no `auth` hook.
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

    async def answer(self, raw: bytes, caller: CallerInfo) -> EncodedAnswer:
        """Answer one request.

        Raises:
            What `problems.is_refusal` names: nothing ran.
        """
        heavy, limits = is_heavy(PROTOBUF, raw), self.service.limits
        try:
            parsed = await parse_in_thread(None, ParsedRequest, raw, limits) if heavy else ParsedRequest(raw, limits)
        except InvalidRequest as error:
            if is_refusal(error):
                raise
            return await self._failed(DataRequest, error)
        asked = parsed.asked

        async def work(opened: OpenedCall) -> bytes:
            endpoint = self._endpoint(opened, asked)
            if endpoint is None:
                return raw
            opened.resize(len(raw))
            call = await self._read(heavy, requests.call, asked, endpoint, opened.context)
            if endpoint.kind == "stream":
                raise InvalidDocs(f"{asked.endpoint} streams its answer; ask it with stream_doc")
            result = await opened.runner.call(call)
            large = heavy or is_large(result, PROTOBUF)
            return await parse_in_thread(None, parsed.answer, result) if large else parsed.answer(result)

        return await self._run(asked, caller, lambda: parsed.message, work, heavy=heavy)

    async def refused(self, raw: bytes, error: Exception) -> EncodedAnswer:
        """The answer that holds an error which `answer` raised, for protocols that send errors in answers only."""

        def message() -> Any:
            try:
                return requests.read(raw, limits=self.service.limits)
            except InvalidRequest:  # the answer holds that error
                return DataRequest()

        return await self._failed(message, error, heavy=is_heavy(PROTOBUF, raw))

    def readiness(self) -> bytes:
        """Whether calls are answered now, as a StatusProto; begins to load where nothing has yet."""
        self.service.start()
        status = StatusProto()
        if reason := self.service.unhealthy_reason():
            status.code, status.description = ERROR, reason
            status.exception.name = "NotReady"
            status.exception.args.append(reason)
        return bytes(status.SerializeToString())

    async def join(self, raw: bytes, caller: CallerInfo) -> EncodedAnswer:
        """Answer one call whose docs come from several nodes, a request each; raises as `answer`."""
        heavy = is_heavy(PROTOBUF, raw)
        try:
            messages = await _offloaded(heavy, requests.read, raw, DataRequestList, self.service.limits)
        except InvalidRequest as error:
            if is_refusal(error):
                raise
            return await self._failed(DataRequest, error)
        if len(messages.requests) < 2:
            return await self.answer(messages.requests[0].SerializeToString() if messages.requests else b"", caller)
        first = messages.requests[0]
        parts = await _offloaded(heavy, lambda: [requests.asked(message) for message in messages.requests])

        async def work(opened: OpenedCall) -> bytes:
            endpoint = self._endpoint(opened, parts[0])
            if endpoint is None:
                return bytes(first.SerializeToString())
            opened.resize(len(raw))
            calls = await self._read(heavy, requests.calls, parts, endpoint, opened.context)
            names = [one.routes[-1].executor if one.routes else f"node{n}" for n, one in enumerate(messages.requests)]
            result = await opened.runner.call(_joined(calls, names, endpoint))
            return await _offloaded(heavy or is_large(result, PROTOBUF), requests.answer, first, result)

        return await self._run(parts[0], caller, lambda: first, work, heavy=heavy)

    async def stream(self, raw: bytes, caller: CallerInfo) -> AsyncGenerator[EncodedAnswer, None]:
        """Answer one stream, a document a message; an error is the last message. Raises as `answer`, at the first step."""
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
            asked = await _offloaded(heavy, requests.asked, message)
            with await self._open(asked, caller) as opened:
                endpoint = self._endpoint(opened, asked)
                if endpoint is None or endpoint.kind != "stream":
                    raise InvalidDocs(f"{asked.endpoint} is no streaming endpoint; it answers post")
                opened.resize(len(raw))
                call = await self._read(heavy, requests.call, asked, endpoint, opened.context)
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

    async def _run(
        self,
        asked: requests.RequestFields,
        caller: CallerInfo,
        message: Callable[[], Any],
        work: Callable[[OpenedCall], Awaitable[bytes]],
        *,
        heavy: bool,
    ) -> EncodedAnswer:
        """Open a call and do its `work`; what that raises is answered by `message`, unless it is a refusal.

        Either answer keeps the call's place in the queue until it has been sent.
        """
        try:
            with await self._open(asked, caller) as opened:
                try:
                    return EncodedAnswer(await work(opened), False, opened.detach())
                except BaseException as error:
                    if is_cancel(error) or is_refusal(error):
                        raise
                    failed = await self._failed(message, future_safe(error), heavy=heavy)
                    return EncodedAnswer(failed.raw, True, opened.detach())
        except BaseException as error:
            if is_cancel(error) or is_refusal(error):
                raise
            return await self._failed(message, future_safe(error), heavy=heavy)

    def _open(self, asked: requests.RequestFields, caller: CallerInfo) -> Awaitable[OpenedCall]:
        return self.service.open(asked.endpoint, caller.headers, caller.user, deadline=caller.deadline)

    @staticmethod
    def _endpoint(opened: OpenedCall, asked: requests.RequestFields) -> Endpoint | None:
        """The endpoint that answers, and the call's request id set; None: the request is sent back unchanged."""
        is_known = _REQUEST_ID.fullmatch(asked.request_id)
        opened.context.request_id = asked.request_id if is_known else os.urandom(16).hex()
        return None if asked.endpoint == DRY_RUN else opened.endpoint

    async def _read(self, heavy: bool, read: Callable[..., T], asked: Any, endpoint: Endpoint, context: Context) -> T:
        """The call, or the calls, of what is asked: their docs are read here."""
        if not heavy:
            return read(asked, endpoint, context, self.service.limits)
        return await parse_in_thread(context.deadline, read, asked, endpoint, context, self.service.limits)

    async def _failed(self, message: Callable[[], Any], error: BaseException, *, heavy: bool = False) -> EncodedAnswer:
        """The answer for an error, made of a message that may be `heavy`."""

        def encode() -> bytes:
            answer = requests.failed(message(), error, expose=self.service.expose_errors)
            return bytes(answer.SerializeToString())

        return EncodedAnswer(await _offloaded(heavy, encode), True)


async def _offloaded(heavy: bool, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns; it runs in the codec thread where it is `heavy`."""
    return await parse_in_thread(None, work, *args, **kwargs) if heavy else work(*args, **kwargs)


def _joined(calls: list[Call], names: list[str], endpoint: Endpoint) -> Call:
    """One call of those of several nodes: their docs one after another, and each node's own as its sources."""
    reader: Codec = codec(endpoint.input)
    sources = tuple((name, call.docs) for name, call in zip(names, calls, strict=True))
    docs = reader.docs(reader.wrap([doc for call in calls for doc in call.docs.typed]))
    first = calls[0]
    return Call(first.endpoint, docs, first.parameters, first.context, sources, first.target_executor)
