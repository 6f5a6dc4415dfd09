"""HTTP: one endpoint of a Runner as an ASGI application. JSON or msgpack in and out; streams as events."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import parse_qs

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from jina_asgi.errors import InvalidRequest, TooLarge, Unauthenticated, UnsupportedMedia
from jina_asgi.protocols import sse
from jina_asgi.protocols.bodies import JSON, MSGPACK, Bodies, Request, answer, loads_object
from jina_asgi.protocols.problems import problem
from jina_asgi.protocols.watch import DisconnectWatch, Watched
from jina_asgi.settings import Limits
from jina_asgi.types import Call, Context, Endpoint, Runner

logger = logging.getLogger("jina_asgi")

Auth = Callable[[Mapping[str, str], str], Awaitable[Any]]
RawHeaders = dict[bytes, bytes]
_CONTENT_TYPES = {JSON: JSON.encode(), MSGPACK: MSGPACK.encode()}
_MEDIA = {raw: media for media, raw in _CONTENT_TYPES.items()}
_MAX_TIMEOUT = 1e7


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


class EndpointApp:
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint, live: Live, options: HttpOptions, watch: DisconnectWatch) -> None:
        self.endpoint, self._live, self._options, self._watch = endpoint, live, options, watch
        self._limits = options.limits
        self._bodies = Bodies(endpoint, options.limits)
        self.methods = ("POST", "GET") if endpoint.kind == "stream" else ("POST",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self.methods:
            allow = ", ".join(self.methods).encode()
            await send_json(send, 405, {"detail": "Method Not Allowed"}, [(b"allow", allow)])
        else:
            await self.serve(scope, receive, send, None)

    async def serve(self, scope: Scope, receive: Receive, send: Send, raw: bytes | None) -> None:
        """Answer a request whose body may have been read already (`raw`)."""
        sent = _Sent(send)
        watched: Watched | None = None
        try:
            headers = dict(scope["headers"])
            auth, limit = self._options.auth, self._limits.body
            identity = await authenticate(auth, self.endpoint.name, scope) if auth else scope.get("user")
            runner = await self._live.runner()
            ticket = runner.admit(self.endpoint.name, size=_length(headers, limit))
            try:
                if raw is None:
                    raw = await read_body(receive, limit)
                watched = self._watch.begin(receive)
                await self._answer(runner, scope, headers, raw, identity, sent)
            finally:
                ticket.close()
        except asyncio.CancelledError:
            if watched is None or not watched.gone:
                raise
            _back_from_cancel()
            logger.debug("499 %s: the client left", self.endpoint.name)
        except ClientGone:
            logger.debug("499 %s: the client left before its body was here", self.endpoint.name)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            await self._tell(error, sent)
        finally:
            if watched is not None:
                self._watch.end(watched)

    async def _answer(
        self, runner: Runner, scope: Scope, headers: RawHeaders, raw: bytes, identity: Any, sent: _Sent
    ) -> None:
        media = _media(headers)
        streams = self.endpoint.kind == "stream"
        bare = streams and scope["method"] == "GET"
        request = self._bare(scope, raw, media) if bare else self._bodies.read(media, raw)
        named = Headers(raw=scope["headers"])
        context = Context(request.request_id, headers=named, deadline=_deadline(headers), identity=identity)
        call = Call(self.endpoint.name, request.docs, request.parameters, context)
        if streams:
            await self._stream(runner, call, sent)
            return
        result = await runner.call(call)
        wanted = MSGPACK if media == MSGPACK or b"msgpack" in headers.get(b"accept", b"") else JSON
        body = answer(result, request.parameters, context.request_id, wanted, columns=request.columns)
        await sent.whole(200, body, _CONTENT_TYPES[wanted])

    async def _stream(self, runner: Runner, call: Call, sent: _Sent) -> None:
        writer = sse.EventWriter(sent.message, self._limits.stream_idle)
        try:
            async with aclosing(runner.stream(call)) as steps:
                async for docs in steps:
                    codec = docs.codec
                    await writer.write(sse.update(codec.dumps(codec.to_json(docs.typed)[0])))
            await writer.finish(sse.END)
        except Exception as error:
            if not writer.started:
                raise
            _, body, _ = problem(error, expose=self._options.expose_errors)
            await writer.finish(sse.event("error", body))
        finally:
            writer.close()

    def _bare(self, scope: Scope, raw: bytes, media: str) -> Request:
        """A GET's bare document: a JSON body as Jina's client sends it, or the query string."""
        if raw:
            if media != JSON:
                raise UnsupportedMedia(f"expected content-type {JSON}, got {media or 'none'!r}")
            return self._bodies.read_doc(loads_object(raw))
        try:
            query = parse_qs(scope["query_string"].decode(), keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise InvalidRequest(f"the query string cannot be read: {error}") from None
        return self._bodies.read_doc({k: v[0] if len(v) == 1 else v for k, v in query.items()})

    async def _tell(self, error: Exception, sent: _Sent) -> None:
        status, body, headers = problem(error, expose=self._options.expose_errors)
        if not sent.started:
            await send_json(sent.send, status, body, headers)


class ClientGone(Exception):  # an event, and nobody's error
    """The client left while its request was being read."""


class _Sent:
    """`send`, and whether the response has begun."""

    __slots__ = ("send", "started")

    def __init__(self, send: Send) -> None:
        self.send, self.started = send, False

    async def message(self, message: Any) -> None:
        self.started = True
        await self.send(message)

    async def whole(self, status: int, body: bytes, content_type: bytes) -> None:
        self.started = True
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with JSON."""
    raw = orjson.dumps(body, default=repr)
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": raw})


async def authenticate(auth: Auth, endpoint: str, scope: Scope) -> Any:
    """Who asks, as the `auth` hook says.

    Raises:
        Unauthenticated: the hook answered None.
    """
    identity = await auth(Headers(raw=scope["headers"]), endpoint)
    if identity is None:
        raise Unauthenticated("not authenticated; send the credentials that this service asks for")
    return identity


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: over `limit` bytes; the rest is not read. ClientGone: the client left within it.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        if size > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _length(headers: RawHeaders, limit: int) -> int:
    """The size that the client declares, 0 where it does not."""
    declared = headers.get(b"content-length")
    if declared is None:
        return 0
    if not declared.isdigit():
        raise InvalidRequest(f"expected content-length as a number, got {declared[:32]!r}")
    if int(declared[:20]) > limit:
        raise _too_large(limit)
    return int(declared)


def _media(headers: RawHeaders) -> str:
    """The content type without its parameters; encoded bodies are refused."""
    coding = headers.get(b"content-encoding", b"identity")
    if coding != b"identity":
        raise UnsupportedMedia(f"expected no content-encoding, got {coding[:32]!r}; send the body as it is")
    declared = headers.get(b"content-type", b"")
    return _MEDIA.get(declared) or declared.decode("latin-1").partition(";")[0].strip().lower()


def _deadline(headers: RawHeaders) -> float | None:
    """The moment until which the client waits, from `X-Request-Timeout` (seconds, a float)."""
    declared = headers.get(b"x-request-timeout")
    if declared is None:
        return None
    try:
        seconds = float(declared)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InvalidRequest(f"expected X-Request-Timeout in seconds, such as 2.5, got {declared[:32]!r}")
    return time.monotonic() + min(seconds, _MAX_TIMEOUT)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"expected a body of at most {limit} bytes; the option `limits` of JinaASGI raises this")


def _back_from_cancel() -> None:
    """We cancelled this task ourselves to stop the work; it goes on to end its request."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
