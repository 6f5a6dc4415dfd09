"""Serves one endpoint of a Runner over HTTP, as an ASGI application: JSON or msgpack bodies, streams as events."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from jina_asgi.concurrency.offload import parse_in_thread
from jina_asgi.concurrency.tasks import cancel_requests, is_cancel
from jina_asgi.errors import InvalidDocs, InvalidRequest, UnsupportedMedia
from jina_asgi.errors._raised import future_safe
from jina_asgi.protocols.http import sse
from jina_asgi.protocols.http.answer_bodies import answer, step_in, written, written_step
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, Bodies, Request, unsupported
from jina_asgi.protocols.http.exchange import (
    CONTENT_TYPES,
    TIMEOUT,
    ClientGone,
    DisconnectMonitor,
    RawHeaders,
    ResponseWriter,
    accepted,
    deadline,
    in_columns,
    in_packed,
    length,
    media_type,
    read_body,
    send_json,
    with_json,
)
from jina_asgi.protocols.http.upload import Upload
from jina_asgi.protocols.http.uploads import Uploads
from jina_asgi.protocols.problems import MethodNotAllowed, in_one_object
from jina_asgi.protocols.service import OpenedCall, Service
from jina_asgi.protocols.size_guard import SMALL, is_large
from jina_asgi.types import Call, Endpoint, random_id

logger = logging.getLogger("jina_asgi")

#: A received body: bytes, the parts of a form, or a file.
Body = bytes | Upload
#: Content types of bodies that are read as a whole.
_WHOLE = frozenset(CONTENT_TYPES.values())
#: Values of `Accept` that allow the request's own media type.
_ANYTHING = frozenset((b"", b"*/*", b"application/json"))


class CallApp(ABC):
    """An ASGI application that makes a call of each request: it parses the headers, opens the call, and replies."""

    def __init__(self, name: str, methods: tuple[str, ...], service: Service, monitor: DisconnectMonitor) -> None:
        self.name, self.methods = name, methods
        self._service, self._monitor, self._limits = service, monitor, service.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = ResponseWriter(send)
        try:
            await self._serve(scope, receive, response)
        except ClientGone:
            await self._left(response)
        except asyncio.CancelledError:
            watched = response.watched
            if watched is None or not watched.gone or cancel_requests() > 1:  # cancelled by others than the monitor
                raise
            await self._left(response)
        finally:
            if response.watched is not None:
                self._monitor.end(response.watched)

    async def _serve(self, scope: Scope, receive: Receive, response: ResponseWriter) -> None:
        try:
            headers, caller = dict(scope["headers"]), Headers(raw=scope["headers"])
            try:
                if scope["method"] not in self.methods:
                    raise MethodNotAllowed(self.methods)
                until = deadline(headers) if TIMEOUT in headers else None
            except InvalidRequest as error:
                self._service.refused(self.name, error, scope["method"])
                await self._service.authenticate(self.name, caller)  # 401 comes before 405 and 400
                raise
            user, method = scope.get("user"), scope["method"]
            with await self._service.open(self.name, caller, user, deadline=until, method=method) as opened:
                app = self.target(method)
                limit = self._limits.body
                announced = length(headers, limit)
                is_whole = headers.get(b"content-type") in _WHOLE
                upload = None if is_whole else app.upload(scope, headers)
                if upload is None:
                    opened.admit(announced)
                    raw = await read_body(receive, limit)
                    opened.resize(len(raw))
                    response.watched = self._monitor.begin(receive, opened.loop)
                    await app.reply(opened, scope, headers, raw, response)
                    return
                opened.admit(upload.expected(announced))
                with upload.kept():
                    await upload.receive(receive, until)
                    opened.resize(upload.weight)
                    response.watched = self._monitor.begin(receive, opened.loop)
                    await app.reply(opened, scope, headers, upload, response)
        except ClientGone:
            raise
        except BaseException as error:
            if is_cancel(error):
                raise
            await self._send_error(future_safe(error), response)

    async def _left(self, response: ResponseWriter) -> None:
        """The client left. The answer is not read, but a middleware that waits for one would log its absence."""
        logger.debug("499 %s: the client left", self.name)
        if not response.started:
            with suppress(Exception):
                await response.whole(499, b"", b"text/plain")

    def target(self, method: str) -> CallApp:
        """The application that answers, by its `upload` and `reply`; called when the Runner has loaded."""
        return self

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        """The receiver of a form or a file; None: the body is read as a whole.

        Raises:
            InvalidRequest, UnsupportedMedia: the endpoint does not accept such a body.
        """
        return None

    @abstractmethod
    async def reply(
        self, opened: OpenedCall, scope: Scope, headers: RawHeaders, raw: Body, response: ResponseWriter
    ) -> None:
        """Parse the body, make the call, and send its answer."""

    async def _send_error(self, error: BaseException, response: ResponseWriter) -> None:
        status, body, headers = self._service.problem(error)
        if not response.started:
            await send_json(response.message, status, body, headers)


class EndpointApp(CallApp):
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint, service: Service, monitor: DisconnectMonitor) -> None:
        methods = ("POST", "GET") if endpoint.kind == "stream" else ("POST",)
        super().__init__(endpoint.name, methods, service, monitor)
        self.endpoint = endpoint
        self.bodies = Bodies(endpoint, service.limits)
        self._uploads = Uploads(endpoint, self.bodies, service.limits)
        self._repeated = {f.name for f in endpoint.input.fields if f.kind in ("list", "tuple", "set", "docs")}

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        if scope["method"] != "POST":
            return None
        return self._uploads.begun(headers.get(b"content-type", b""), scope["query_string"], media_type(headers))

    async def reply(
        self, opened: OpenedCall, scope: Scope, headers: RawHeaders, raw: Body, response: ResponseWriter
    ) -> None:
        runner, context = opened.runner, opened.context
        media = media_type(headers)
        streams = self.endpoint.kind == "stream"
        heavy = False
        if media == JSON and scope["method"] == "POST" and not isinstance(raw, Upload) and len(raw) < SMALL:
            request = self.bodies.read(media, raw)  # the common case
        else:
            read, heavy = self._reader(scope, media, raw)
            request = await parse_in_thread(context.deadline, read, heavy=True) if heavy else read()
        context.request_id = request.request_id or random_id()
        target = request.target_executor
        call = Call(self.endpoint.name, request.docs, request.parameters, context, (), target)
        if streams:
            await self._stream(opened, call, request, response, headers.get(b"accept", b""))
            return
        try:
            result = await runner.call(call)
        except InvalidDocs as error:
            raise request.placed(error) from error
        accept = headers.get(b"accept", b"")
        wanted = JSON if media == JSON and accept in _ANYTHING else accepted(accept, media)
        columns = request.columns or (wanted == MSGPACK and in_columns(accept))
        both = wanted == MSGPACK and with_json(accept)
        write = answer, result, request.parameters, context.request_id, wanted, columns, both
        body = await written(call, heavy or is_large(result, wanted), *write)
        await response.whole(200, body, CONTENT_TYPES[wanted])

    def _reader(self, scope: Scope, media: str, raw: Body) -> tuple[Callable[..., Request], bool]:
        """The function that reads a body, and whether it should run in a thread.

        Raises:
            UnsupportedMedia: a body of this content type is not read.
        """
        if isinstance(raw, Upload):
            return partial(self._uploads.read, scope["query_string"], media, raw), self._uploads.is_heavy(raw)
        heavy = self.bodies.is_heavy(media, raw)
        if scope["method"] == "GET":
            return partial(self._bare, scope, media, raw), heavy
        if media not in CONTENT_TYPES:
            raise unsupported(media)
        return partial(self.bodies.read, media, raw), heavy

    async def _stream(
        self, opened: OpenedCall, call: Call, request: Request, response: ResponseWriter, accept: bytes
    ) -> None:
        packed = in_packed(accept)
        writer = sse.EventWriter(response.send, self._limits.stream_idle, packed=packed)
        media, step, update = JSON, step_in(JSON), sse.update
        if packed:
            media, step, update = MSGPACK, step_in(MSGPACK, with_json=with_json(accept)), sse.packed_update
        try:
            async with aclosing(opened.runner.stream(call)) as steps:
                async for docs in steps:
                    await writer.write(await written_step(call, docs, media, step, update))
                    if response.watched is not None and response.watched.gone:  # a server's `send` swallowed the cancel
                        raise ClientGone
            response.ends()
            await writer.finish(sse.END)
        except OSError:
            raise ClientGone from None
        except Exception as error:
            if not writer.started and isinstance(error, InvalidDocs):
                raise request.placed(error) from error
            if not writer.started or isinstance(error, ClientGone):
                raise
            opened.failed(error)
            body = in_one_object(*self._service.problem(error))
            response.ends()
            with suppress(OSError):
                await writer.finish(sse.event("error", body))
        finally:
            response.started = writer.started
            writer.close()

    def _bare(self, scope: Scope, media: str, raw: bytes, *, heavy: bool = False) -> Request:
        """Reads the document of a GET request: a JSON body, as Jina's client sends it, or the query string."""
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
