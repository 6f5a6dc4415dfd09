"""HTTP: one endpoint of a Runner as an ASGI application. JSON or msgpack in and out; streams as events."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from jina_asgi.concurrency.hooks import settled
from jina_asgi.concurrency.offload import beside
from jina_asgi.concurrency.tasks import cancel_requests, is_cancel
from jina_asgi.errors import (
    DeadlineExceeded,
    InvalidDocs,
    InvalidRequest,
    Unauthenticated,
    UnsupportedMedia,
)
from jina_asgi.errors._raised import carried
from jina_asgi.protocols.http import sse
from jina_asgi.protocols.http.answer_bodies import answer, large_step, step_in, unwritable, written
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, Bodies, Request, unsupported
from jina_asgi.protocols.http.disconnects import DisconnectWatch
from jina_asgi.protocols.http.exchange import ClientGone, Sent, read_body, send_json
from jina_asgi.protocols.http.headers import (
    CONTENT_TYPES,
    RawHeaders,
    accepted,
    deadline,
    in_columns,
    in_packed,
    length,
    media_type,
    with_json,
)
from jina_asgi.protocols.http.upload import Upload
from jina_asgi.protocols.http.uploads import Uploads
from jina_asgi.protocols.problems import MethodNotAllowed, problem
from jina_asgi.protocols.size_guard import are_large, is_large
from jina_asgi.settings import Auth, Limits
from jina_asgi.types import Call, Context, Endpoint, Runner

logger = logging.getLogger("jina_asgi")

T = TypeVar("T")
#: What a request's body is, once it is there: bytes, or the parts of a form, or a file.
Body = bytes | Upload
#: Content types, as headers spell them, of bodies that are read whole.
_WHOLE = frozenset(CONTENT_TYPES.values())
#: What `Accept` says where whatever the request itself is in will do.
_ANYTHING = frozenset((b"", b"*/*", b"application/json"))


class Live(Protocol):
    """Where the Runner lives; it may still be loading."""

    async def runner(self) -> Runner:
        """The Runner, as this event loop may call it; waits for it a while, then raises NotReady."""
        ...


class HttpOptions(Protocol):
    """What an application decides for all its endpoints."""

    @property
    def limits(self) -> Limits: ...
    @property
    def auth(self) -> Auth | None: ...
    @property
    def expose_errors(self) -> bool: ...


class CallApp(ABC):
    """An ASGI application that makes one call of each request: who asks, a place in the queue, the body, the answer."""

    def __init__(
        self, name: str, methods: tuple[str, ...], live: Live, options: HttpOptions, watch: DisconnectWatch
    ) -> None:
        self.name, self.methods = name, methods
        self._live, self._options, self._watch, self._limits = live, options, watch, options.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Sent(send)
        try:
            await self._serve(scope, receive, sent)
        except ClientGone:
            await self._left(sent)
        except asyncio.CancelledError:
            if sent.watched is None or not sent.watched.gone or cancel_requests() > 1:  # not by the watcher alone
                raise
            await self._left(sent)
        finally:
            if sent.watched is not None:
                self._watch.end(sent.watched)

    async def _serve(self, scope: Scope, receive: Receive, sent: Sent) -> None:
        try:
            headers = dict(scope["headers"])
            auth, limit = self._options.auth, self._limits.body
            identity = await authenticate(auth, self.name, scope) if auth else scope.get("user")
            if scope["method"] not in self.methods:
                raise MethodNotAllowed(self.methods)
            until = deadline(headers)
            live = self._live.runner()
            runner = await (live if until is None else within(until, live))
            announced = length(headers, limit)
            upload = self.upload(scope, headers)
            expected = announced if upload is None else upload.expected(announced)
            ticket = runner.admit(self.name, size=expected)
            try:
                with nullcontext() if upload is None else upload.kept():
                    raw = await (read_body(receive, limit) if upload is None else upload.receive(receive, until))
                    size = raw.weight if isinstance(raw, Upload) else len(raw)
                    if size > expected:  # it had no Content-Length
                        ticket.close()
                        ticket = runner.admit(self.name, size=size)
                    if until is not None and time.monotonic() >= until:
                        raise DeadlineExceeded(f"the deadline of this call to {self.name} has passed")
                    sent.watched = self._watch.begin(receive)
                    context = Context("", headers=Headers(raw=scope["headers"]), deadline=until, identity=identity)
                    await self.reply(runner, scope, headers, raw, context, sent)
            finally:
                ticket.close()
        except ClientGone:
            raise
        except BaseException as error:
            if is_cancel(error):
                raise
            await self._tell(carried(error), sent)  # told to the client, and logged there

    async def _left(self, sent: Sent) -> None:
        """The client left. An answer goes to nobody, but a middleware that waits for one logs its absence."""
        logger.debug("499 %s: the client left", self.name)
        if not sent.started:
            with suppress(Exception):
                await sent.whole(499, b"", b"text/plain")

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        """What takes a body that is a form or a file as it arrives; None: the body is read whole.

        Raises:
            InvalidRequest, UnsupportedMedia: it is no such body as this takes.
        """
        return None

    @abstractmethod
    async def reply(
        self, runner: Runner, scope: Scope, headers: RawHeaders, raw: Body, context: Context, sent: Sent
    ) -> None:
        """Make the call that a request means, and send its answer; `context` still lacks the request's id."""

    async def _tell(self, error: BaseException, sent: Sent) -> None:
        status, body, headers = problem(error, expose=self._options.expose_errors)
        if not sent.started:
            await send_json(sent.message, status, body, headers)


class EndpointApp(CallApp):
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint, live: Live, options: HttpOptions, watch: DisconnectWatch) -> None:
        super().__init__(
            endpoint.name, ("POST", "GET") if endpoint.kind == "stream" else ("POST",), live, options, watch
        )
        self.endpoint = endpoint
        self.bodies = Bodies(endpoint, options.limits)
        self._uploads = Uploads(endpoint, self.bodies, options.limits)
        self._repeated = {f.name for f in endpoint.input.fields if f.kind in ("list", "tuple", "set", "docs")}

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        declared = headers.get(b"content-type", b"")
        if declared in _WHOLE or scope["method"] != "POST":
            return None
        return self._uploads.begun(declared, scope["query_string"], media_type(headers))

    async def reply(
        self, runner: Runner, scope: Scope, headers: RawHeaders, raw: Body, context: Context, sent: Sent
    ) -> None:
        media = media_type(headers)
        streams = self.endpoint.kind == "stream"
        read: Callable[..., Request]
        if isinstance(raw, Upload):
            read = partial(self._uploads.read, scope["query_string"], media, raw)
            heavy = self._uploads.is_heavy(raw)
        elif streams and scope["method"] == "GET":
            read, heavy = partial(self._bare, scope, media, raw), self.bodies.is_heavy(media, raw)
        elif media in CONTENT_TYPES:
            read, heavy = partial(self.bodies.read, media, raw), self.bodies.is_heavy(media, raw)
        else:
            raise unsupported(media)
        request = await beside(context.deadline, read, heavy=True) if heavy else read()
        context.request_id = request.request_id or os.urandom(16).hex()
        target = request.target_executor
        call = Call(self.endpoint.name, request.docs, request.parameters, context, (), target)
        if streams:
            await self._stream(runner, call, request, sent, headers.get(b"accept", b""))
            return
        try:
            result = await runner.call(call)
        except InvalidDocs as error:
            raise request.placed(error) from error
        accept = headers.get(b"accept", b"")
        wanted = JSON if media == JSON and accept in _ANYTHING else accepted(accept, media)
        columns = request.columns or (wanted == MSGPACK and in_columns(accept))
        told = wanted == MSGPACK and with_json(accept)
        write = partial(answer, result, request.parameters, context.request_id, wanted, columns=columns, with_json=told)
        body = await written(call, write, large=heavy or is_large(result, wanted))
        await sent.whole(200, body, CONTENT_TYPES[wanted])

    async def _stream(self, runner: Runner, call: Call, request: Request, sent: Sent, accept: bytes) -> None:
        packed = in_packed(accept)
        writer = sse.EventWriter(sent.send, self._limits.stream_idle, packed=packed)
        media, step, update = JSON, step_in(JSON), sse.update
        if packed:
            media, step, update = MSGPACK, step_in(MSGPACK, with_json=with_json(accept)), sse.packed_update
        try:
            async with aclosing(runner.stream(call)) as steps:
                async for docs in steps:
                    try:
                        large = are_large(docs, media)
                        event = await large_step(step, docs, update) if large else update(step(docs))
                    except BaseException as error:
                        if is_cancel(error):
                            raise
                        raise unwritable(call, error) from error
                    await writer.write(event)
                    if sent.watched is not None and sent.watched.gone:  # the server's `send` swallowed our cancel
                        raise ClientGone
            sent.ends()
            await writer.finish(sse.END)
        except OSError:
            raise ClientGone from None
        except Exception as error:
            if not writer.started and isinstance(error, InvalidDocs):
                raise request.placed(error) from error
            if not writer.started or isinstance(error, ClientGone):
                raise
            _, body, _ = problem(error, expose=self._options.expose_errors)
            sent.ends()
            with suppress(OSError):
                await writer.finish(sse.event("error", body))
        finally:
            sent.started = writer.started
            writer.close()

    def _bare(self, scope: Scope, media: str, raw: bytes, *, heavy: bool = False) -> Request:
        """A GET's bare document: a JSON body as Jina's client sends it, or the query string."""
        if raw:
            if media != JSON:
                raise UnsupportedMedia(f"expected content-type {JSON}, got {media or 'none'!r}")
            return self.bodies.read_bare(raw, heavy=heavy)
        try:
            query = parse_qs(scope["query_string"].decode(), keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise InvalidRequest(f"the query string cannot be read: {error}") from None
        fields = {k: v[0] if len(v) == 1 and k not in self._repeated else v for k, v in query.items()}
        return self.bodies.read_doc(fields)


async def authenticate(auth: Auth, endpoint: str, scope: Scope) -> Any:
    """Who asks, as the `auth` hook says.

    Raises:
        Unauthenticated: the hook answered None.
    """
    identity = await settled(auth(Headers(raw=scope["headers"]), endpoint))
    if identity is None:
        raise Unauthenticated("not authenticated; send the credentials that this service asks for")
    return identity


async def within(until: float, work: Awaitable[T]) -> T:
    """Wait for `work` until the deadline of a call that has not begun.

    Raises:
        DeadlineExceeded: it passed.
    """
    try:
        async with asyncio.timeout(until - time.monotonic()) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the deadline of this call passed while it waited for loading to end") from None
