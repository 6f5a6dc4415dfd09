"""One HTTP exchange: reads the whole body, sends the answer, and handles a client that leaves in between.

Notices that a client disconnects, cheaply: one ticker, and one `receive()` for each request that takes long.

A task a request costs 15 µs; most requests end before their client could leave. The one `receive()` is never
cancelled before the response is done: gunicorn's asgi worker takes that for a disconnect.

Reads the headers of one request: length, media type, the answer's media type, and deadline.

Pure functions of raw header values, names in lower case.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import threading
import time
from email.message import Message
from typing import Any

import msgspec
from starlette.types import Receive, Send

from jina_asgi.concurrency.tasks import log_failure, start_task
from jina_asgi.errors import InvalidRequest, TooLarge, UnsupportedMedia
from jina_asgi.protocols.http.bodies import JSON, MSGPACK, PROTOBUF, protobuf
from jina_asgi.protocols.problems import as_json
from jina_asgi.protocols.service import CallerLeft

RawHeaders = dict[bytes, bytes]

#: The media types of answers.
CONTENT_TYPES = {media: media.encode() for media in (JSON, MSGPACK, PROTOBUF)}
_MEDIA = {raw: media for media, raw in CONTENT_TYPES.items()}
#: The header with the seconds that the client waits.
TIMEOUT = b"x-request-timeout"
_MAX_TIMEOUT = 1e7
_MAX_DIGITS = 20


def length(headers: RawHeaders, limit: int) -> int:
    """The declared size of the body; 0 without one.

    Raises:
        InvalidRequest: it is not a number. TooLarge: it is over `limit`.
    """
    declared = headers.get(b"content-length")
    if declared is None:
        return 0
    if not declared.isdigit() or len(declared) > _MAX_DIGITS:
        raise InvalidRequest(f"expected content-length as a number, got {declared[:32]!r}")
    size = int(declared)
    if size > limit:
        raise too_large(limit)
    return size


def media_type(headers: RawHeaders) -> str:
    """The content type without parameters; "" without one.

    Raises:
        UnsupportedMedia: the body is encoded, or in another charset than UTF-8.
    """
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        raise UnsupportedMedia(f"expected no content-encoding, got {coding[:32]!r}; send the body as it is")
    declared = headers.get(b"content-type", b"")
    return _MEDIA.get(declared) or _parsed(declared)


@functools.lru_cache(maxsize=64)
def accepted(accept: bytes, media: str) -> str:
    """The media type that `Accept` prefers: JSON, msgpack or protobuf; else that of the request (JSON for a query).

    Other media types are not refused: HTTP lets a server ignore `Accept`.
    """
    weights = dict(_weight(item) for item in accept.decode("latin-1").lower().split(","))

    def wish(name: str) -> tuple[float, bool]:
        named = weights.get(name)
        return (weights.get("application/*", weights.get("*/*", 0.0)), False) if named is None else (named, True)

    own = media if media in CONTENT_TYPES else JSON
    best = max((other for other in CONTENT_TYPES if other != own), key=wish)
    if wish(best) <= max(wish(own), (0.0, True)):
        return own
    return best if best != PROTOBUF or _has_protobuf() else own


def _has_protobuf() -> bool:
    try:
        protobuf()
    except UnsupportedMedia:
        return False
    return True


@functools.lru_cache(maxsize=64)
def in_columns(accept: bytes) -> bool:
    """Whether msgpack is requested in columns: `application/msgpack; columns=true`."""
    return any(
        media.strip() == MSGPACK and "columns=true" in map(str.strip, parameters)
        for media, *parameters in (item.split(";") for item in accept.decode("latin-1").lower().split(","))
    )


def with_json(accept: bytes) -> bool:
    """Whether documents in msgpack should also have their JSON: `...; json=true`, for servers that pass them on."""
    return b"json=true" in accept


def in_packed(accept: bytes) -> bool:
    """Whether a stream's documents are requested as msgpack: `text/event-stream; data=msgpack`."""
    return b"data=msgpack" in accept and b"text/event-stream" in accept


def deadline(headers: RawHeaders) -> float | None:
    """The client's deadline, from `X-Request-Timeout` (seconds, a float).

    Raises:
        InvalidRequest: it is not a number, or negative.
    """
    declared = headers.get(TIMEOUT)
    if declared is None:
        return None
    try:
        seconds = float(declared)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InvalidRequest(f"expected X-Request-Timeout in seconds, such as 2.5, got {declared[:32]!r}")
    return time.monotonic() + min(seconds, _MAX_TIMEOUT)


def too_large(limit: int) -> TooLarge:
    """The error for a body over the limit; it names the option that raises the limit."""
    return TooLarge(f"expected a body of at most {limit} bytes; the option `limits` of JinaASGI raises this")


@functools.lru_cache(maxsize=64)
def _parsed(declared: bytes) -> str:
    message = Message()
    message["content-type"] = declared.decode("latin-1")
    charset = str(message.get_param("charset", "utf-8")).lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"expected charset utf-8, got {charset[:32]!r}")
    return message.get_content_type() if declared else ""


def _weight(item: str) -> tuple[str, float]:
    """A media range of `Accept` and its quality; 1 without one, and 0 if it is invalid."""
    media, *parameters = (part.strip() for part in item.split(";"))
    given = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    try:
        return media, float(given)
    except ValueError:
        return media, 0.0


logger = logging.getLogger("jina_asgi")

INTERVAL = 0.1


class Watched(msgspec.Struct, eq=False):
    """One request being watched.

    Attributes:
        young: the requests of its loop that are not listened to yet, this one among them at first.
        gone: its client has left, and its task was cancelled.
        answered: the end of the response is being sent, so that a client which leaves from now on has its answer.
    """

    _receive: Receive
    task: asyncio.Task[Any]
    since: float
    young: dict[Watched, None]
    watcher: asyncio.Task[None] | None = None
    gone: bool = False
    answered: bool = False

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen for the client's disconnect."""
        self.watcher = start_task(self._wait(), log_failure("watching for a client's leaving"))

    async def _wait(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception:  # errors of a server or a middleware do not end the request
            logger.debug("cannot listen for the client's disconnect", exc_info=True)
            return
        if not self.answered:
            self.gone = True
            self.task.cancel()


class _LoopMonitor(dict[Watched, None]):
    """The requests of one event loop that are not listened to yet, the oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.is_ticking = loop, False

    def tick_later(self) -> None:
        """Look in a while whether a request has lasted long, and again while there are any."""
        self.is_ticking = True
        self.loop.call_later(INTERVAL, self._tick)

    def _tick(self) -> None:
        old = self.loop.time() - INTERVAL
        for watched in list(self):
            if watched.since > old:
                break
            del self[watched]
            watched.watch(self.loop)
        self.is_ticking = False
        if self:
            self.tick_later()


class DisconnectMonitor:
    """Cancels the tasks of requests whose clients leave: `begin` with each request, `end` with its response."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def begin(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> Watched:
        """Watch the current task's request, whose body has been read; `loop` is the running one."""
        task = asyncio.current_task(loop)
        assert task is not None
        young: _LoopMonitor | None = getattr(self._thread, "young", None)
        if young is None or young.loop is not loop:  # requests of the thread's previous loop (a test's) are over
            young = self._thread.young = _LoopMonitor(loop)
        if not young.is_ticking:
            young.tick_later()
        watched = Watched(receive, task, loop.time(), young)
        young[watched] = None
        return watched

    def end(self, watched: Watched) -> None:
        """End watching: the response has been sent."""
        watched.young.pop(watched, None)
        if watched.watcher is not None:
            watched.watcher.cancel()
        if watched.gone:
            watched.task.uncancel()  # it goes on to end its request


#: Bytes of a body that are sent in one message.
_PIECE = 2**20


class ClientGone(CallerLeft):
    """The client left while its request was being read."""


class ResponseWriter(msgspec.Struct, eq=False):
    """One response: ASGI's `send`, whether it has started, and the monitor's entry for its client."""

    send: Send
    started: bool = False
    watched: Watched | None = None

    def ends(self) -> None:
        """Called before the last message: a client that leaves from now on has its answer."""
        if self.watched is not None:
            self.watched.answered = True

    async def message(self, message: Any) -> None:
        """Send one message of the response.

        Raises:
            ClientGone: the server reports it here.
        """
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ends()
        try:
            await self.send(message)
        except OSError:
            raise ClientGone from None

    async def whole(self, status: int, body: bytes, content_type: bytes) -> None:
        """Send the whole response, a large body in pieces; raises as `message` does.

        A server copies what it is given at once; it waits between pieces until the client has read enough of them.
        """
        self.started = True
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        try:
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            start = 0
            while len(body) - start > _PIECE:
                piece = body[start : start + _PIECE]
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
                start += _PIECE
            if self.watched is not None:
                self.watched.answered = True
            await self.send({"type": "http.response.body", "body": body[start:]})
        except OSError:
            raise ClientGone from None


async def send_json(send: Send, status: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with JSON."""
    raw = as_json(body)
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": raw})


async def read_body(receive: Receive, limit: int) -> bytes:
    """Reads the whole body.

    Raises:
        TooLarge: it is over `limit` bytes; the rest is not read. ClientGone: the client left meanwhile.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise too_large(limit)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        if size > limit:
            raise too_large(limit)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > limit:
        raise too_large(limit)
    return b"".join(chunks)
