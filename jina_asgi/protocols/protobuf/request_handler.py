"""Jina's requests answered by a Runner: one, a list of them that meet at a join, and a stream.

What an Executor raised is told in the answer, with the request's own docs, and its RPC goes well; see `admission`
for what is raised instead. Bytes come in and go out: what is no message at all is answered too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import msgspec

from jina_asgi.concurrency.offload import beside
from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.documents.codec import Codec, codec
from jina_asgi.errors import DeadlineExceeded, InvalidDocs, InvalidRequest
from jina_asgi.errors._raised import carried
from jina_asgi.protocols.admission import Lasting, RpcOptions, identify, is_refusal
from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.protobuf.messages import (
    DRY_RUN,
    ERROR,
    DataRequest,
    DataRequestList,
    SingleDocumentRequest,
    StatusProto,
)
from jina_asgi.protocols.protobuf.parsed_request import Incoming
from jina_asgi.protocols.size_guard import PROTOBUF, are_large, is_heavy, is_large
from jina_asgi.types import Call, Context, Endpoint, Result, Runner, Ticket, resolve

T = TypeVar("T")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Asker(msgspec.Struct, frozen=True):
    """Who makes the requests of one RPC or socket.

    Attributes:
        headers: the metadata of an RPC, or the handshake's headers.
        deadline: the moment until which an answer is awaited.
        user: who that is where no `auth` hook says it: whom the host's own middleware found.
    """

    headers: Mapping[str, str]
    deadline: float | None = None
    user: Any = None


class Answered(msgspec.Struct, frozen=True):
    """An answer, and whether it tells of an error."""

    raw: bytes
    failed: bool = False
    ticket: Ticket | None = None


class Answering:
    """What the services of one server have in common.

    Args:
        life: where the Runner lives.
        options: those of the application.
    """

    def __init__(self, life: Lasting, options: RpcOptions) -> None:
        self.life, self.options = life, options

    async def answer(self, raw: bytes, asker: Asker) -> Answered:
        """Answer one request; the ticket is to be closed when the answer is out.

        Raises:
            What `admission.REFUSALS` names: nothing ran.
        """
        try:
            incoming = Incoming(raw, self.options.limits)
        except InvalidRequest as error:
            if is_refusal(error):
                raise
            return self._failed(DataRequest(), error)
        asked, place = incoming.asked, _Place()
        try:
            runner, endpoint, context = await self._found(asked, asker)
            if endpoint is None:
                return Answered(raw)
            place.ticket = runner.admit(endpoint.name, size=len(raw))
            call = await self._read(raw, requests.call, asked, endpoint, context)
            if endpoint.kind == "stream":
                raise InvalidDocs(f"{asked.endpoint} streams its answer; ask it with stream_doc")
            result = await runner.call(call)
            large = is_large(result, PROTOBUF) or is_heavy(PROTOBUF, raw)
            return place.along(await beside(None, incoming.answer, result) if large else incoming.answer(result))
        except BaseException as error:
            if is_cancel(error) or is_refusal(error):
                raise
            return place.along(self._failed(incoming.message, carried(error)).raw, failed=True)
        finally:
            place.close()

    def refused(self, raw: bytes, error: Exception) -> Answered:
        """The answer that tells of what `answer` raised, for a wire that tells of it in no other way."""
        try:
            message = requests.read(raw, limits=self.options.limits)
        except InvalidRequest:  # that is what is told
            message = DataRequest()
        return self._failed(message, error)

    def readiness(self) -> bytes:
        """Whether requests would be answered now, as a StatusProto; begins to load what has not."""
        self.life.start()
        status = StatusProto()
        if not self.life.ready:
            status.code, status.description = ERROR, self.life.reason()
            status.exception.name = "NotReady"
            status.exception.args.append(status.description)
        return bytes(status.SerializeToString())

    async def join(self, raw: bytes, asker: Asker) -> Answered:
        """Answer one call whose docs come from several nodes, a request each; raises as `answer`."""
        try:
            messages = requests.read(raw, DataRequestList, self.options.limits)
        except InvalidRequest as error:
            if is_refusal(error):
                raise
            return self._failed(DataRequest(), error)
        if len(messages.requests) < 2:
            return await self.answer(messages.requests[0].SerializeToString() if messages.requests else b"", asker)
        first = messages.requests[0]
        place = _Place()
        try:
            parts = [requests.asked(message) for message in messages.requests]
            runner, endpoint, context = await self._found(parts[0], asker)
            if endpoint is None:
                return Answered(first.SerializeToString())
            place.ticket = runner.admit(endpoint.name, size=len(raw))
            calls = await self._read(raw, requests.calls, parts, endpoint, context)
            names = [one.routes[-1].executor if one.routes else f"node{n}" for n, one in enumerate(messages.requests)]
            result = await runner.call(_joined(calls, names, endpoint))
            return place.along(await self._written(raw, partial(requests.answer, first), result))
        except BaseException as error:
            if is_cancel(error) or is_refusal(error):
                raise
            return place.along(self._failed(first, carried(error)).raw, failed=True)
        finally:
            place.close()

    async def stream(self, raw: bytes, asker: Asker) -> AsyncGenerator[Answered, None]:
        """Answer one stream, a document a message; an error is the last message. Raises as `answer`, at the first step."""
        try:
            message = requests.read(raw, SingleDocumentRequest, self.options.limits)
        except InvalidRequest as error:
            if is_refusal(error):
                raise
            yield self._failed(SingleDocumentRequest(), error)
            return
        begun, place = False, _Place()
        try:
            asked = requests.asked(message)
            runner, endpoint, context = await self._found(asked, asker)
            if endpoint is None or endpoint.kind != "stream":
                raise InvalidDocs(f"{asked.endpoint} is no streaming endpoint; it answers post")
            place.ticket = runner.admit(endpoint.name, size=len(raw))
            call = await self._read(raw, requests.call, asked, endpoint, context)
            step = requests.stepped(message)
            async with aclosing(runner.stream(call)) as steps:
                async for docs in steps:
                    begun = True
                    large = are_large(docs, PROTOBUF)
                    yield Answered(await beside(None, step, docs) if large else step(docs))
        except GeneratorExit:
            raise
        except BaseException as error:
            if is_cancel(error) or (is_refusal(error) and not begun):
                raise
            yield self._failed(message, carried(error))
        finally:
            place.close()

    async def _found(self, asked: requests.Asked, asker: Asker) -> tuple[Runner, Endpoint | None, Context]:
        """The Runner, the endpoint that answers (None: none does), and the context of a call.

        Raises:
            What refuses it, or DeadlineExceeded.
        """
        auth = self.options.auth
        identity = await identify(auth, asker.headers, asked.endpoint) if auth else asker.user
        runner = await self.life.runner()
        if asker.deadline is not None and time.monotonic() >= asker.deadline:
            raise DeadlineExceeded(f"the deadline of this call to {asked.endpoint} has passed")
        known = _REQUEST_ID.fullmatch(asked.request_id)
        identifier = asked.request_id if known else os.urandom(16).hex()
        context = Context(identifier, headers=asker.headers, deadline=asker.deadline, identity=identity)
        endpoint = None if asked.endpoint == DRY_RUN else resolve(runner.endpoints, asked.endpoint)
        return runner, endpoint, context

    async def _read(self, raw: bytes, read: Callable[..., T], asked: Any, endpoint: Endpoint, context: Context) -> T:
        """The call, or the calls, of what is asked: their docs are read here."""
        if not is_heavy(PROTOBUF, raw):
            return read(asked, endpoint, context, self.options.limits)
        return await beside(context.deadline, read, asked, endpoint, context, self.options.limits)

    async def _written(self, raw: bytes, write: Callable[[Result], bytes], result: Result) -> bytes:
        """The answer that `write` makes of the result of a request."""
        if not (is_large(result, PROTOBUF) or is_heavy(PROTOBUF, raw)):
            return write(result)
        return await beside(None, write, result)

    def _failed(self, message: Any, error: BaseException) -> Answered:
        told = requests.failed(message, error, expose=self.options.expose_errors)
        return Answered(told.SerializeToString(), True)


class _Place:
    """A call's place in the queue: it goes along with the answer, or is given back here."""

    __slots__ = ("ticket",)

    def __init__(self) -> None:
        self.ticket: Ticket | None = None

    def along(self, raw: bytes, *, failed: bool = False) -> Answered:
        ticket, self.ticket = self.ticket, None
        return Answered(raw, failed, ticket)

    def close(self) -> None:
        if self.ticket is not None:
            self.ticket.close()


def _joined(calls: list[Call], names: list[str], endpoint: Endpoint) -> Call:
    """One call of those of several nodes: their docs one after another, and each node's own as its sources."""
    reader: Codec = codec(endpoint.input)
    sources = tuple((name, call.docs) for name, call in zip(names, calls, strict=True))
    docs = reader.docs(reader.wrap([doc for call in calls for doc in call.docs.typed]))
    first = calls[0]
    return Call(first.endpoint, docs, first.parameters, first.context, sources, first.target_executor)
