"""A server at a URL, asked over an httpx client: its endpoints, one answer, one stream of events.

Ours are sent msgpack; any other, a real Jina among them, JSON. Errors come back as ours. What a client of ours and a
Runner of ours have in common is here; neither is.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import orjson

from jina_asgi.documents import tensors
from jina_asgi.documents.codec import Codec, pack, unpack
from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    InvalidDocs,
    InvalidRequest,
    NotReady,
    ProtocolError,
    ReplicaDied,
    UnknownEndpoint,
)
from jina_asgi.protocols.frames._heads import endpoint_of
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from jina_asgi.protocols.http.openapi_reader import endpoints_of, streams_by_get
from jina_asgi.protocols.http.sse_reader import Event, events
from jina_asgi.protocols.problem_reader import told, told_as
from jina_asgi.types import EMPTY, Docs, Endpoint

#: No timeouts of httpx's own: a call has a deadline, or none. Connecting has one.
TIMEOUT = httpx.Timeout(None, connect=10.0)
#: More requests than this at once wait for each other.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


@dataclass(frozen=True, slots=True)
class Served:
    """What a server answers.

    `ours` says that it is one of ours, which takes msgpack and told its endpoints exactly. `by_get` are the streams
    that take a bare document by GET, and no parameters. `streams` is False where no endpoint can be asked for a stream.
    """

    endpoints: Mapping[str, Endpoint]
    ours: bool
    by_get: frozenset[str] = frozenset()
    streams: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. `header` is Jina's, in the body; `headers` are HTTP's. `deadline` is on `time.monotonic`'s clock.

    `columns` asks for the answer's docs field by field, `with_json` for what JSON would say of them too: only msgpack has it.
    `files` make a form of the request: each a field's name, and the file's own, its bytes and its media type.
    """

    endpoint: str
    docs: Docs
    parameters: Mapping[str, Any] = EMPTY
    header: Mapping[str, Any] = EMPTY
    headers: Mapping[str, str] = EMPTY
    deadline: float | None = None
    columns: bool = False
    with_json: bool = False
    files: tuple[tuple[str, tuple[str | None, bytes, str]], ...] = ()

    def form(self) -> dict[str, bytes]:
        """The parts of a form that are no files: what a body of JSON holds.

        Raises:
            InvalidDocs: something in it has no such form.
        """
        held = orjson.loads(self.body(JSON))
        return {key: orjson.dumps(held[key]) for key in ("data", "parameters", "header") if held.get(key)}

    def body(self, media: str) -> bytes:
        """The body, in a media type.

        Raises:
            InvalidDocs: something in it has no such form.
        """
        body: dict[str, Any] = {}
        if self.header:
            body = {**self.header, "header": dict(self.header)}  # Jina's client says some of it twice
            del body["request_id"]
        if self.parameters:
            body["parameters"] = dict(self.parameters)
        codec: Codec = self.docs.codec
        try:
            if media == MSGPACK:
                return pack({**body, "data": [msgspec.Raw(buffer) for buffer in self.docs.encoded]})
            return codec.dumps_request({**body, "data": codec.to_values(self.docs.typed)})
        except (ExecutorError, TypeError, ValueError, OverflowError) as error:
            raise InvalidDocs(f"a call to {self.endpoint} cannot be written: {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, its docs not read yet: msgpack buffers, or JSON values; or, in `columns`, all values of each field."""

    data: list[Any]
    media: str
    parameters: Mapping[str, Any]
    header: Mapping[str, Any]
    routes: tuple[Any, ...] = ()
    columns: Mapping[str, Any] | None = None

    def docs(self, codec: Codec) -> Docs:
        """The docs, as a codec reads them.

        Raises:
            InvalidDocs: they are JSON, and not what the codec's schema says. Of msgpack `Docs.typed` raises this.
        """
        return codec.encoded(self.data) if self.media == MSGPACK else codec.docs(codec.read(self.data))

    def values(self) -> list[Any]:
        """The docs as dicts, as they came.

        Raises:
            InvalidDocs: they cannot be read.
        """
        values = [unpack(buffer) for buffer in self.data] if self.media == MSGPACK else self.data
        if not all(isinstance(value, dict) for value in values):
            raise InvalidDocs("expected objects as docs")
        return values


class _Packed(msgspec.Struct):
    data: list[msgspec.Raw] | dict[str, Any]
    parameters: dict[str, Any] | None = None
    header: dict[str, Any] | None = None


class _Json(msgspec.Struct):
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None
    header: dict[str, Any] | None = None
    routes: list[Any] | None = None


#: What a stream is to come as, by the form of its request.
_STREAMS = {JSON: "text/event-stream", MSGPACK: "text/event-stream; data=msgpack"}
_unpack = msgspec.msgpack.Decoder(_Packed, ext_hook=tensors.unpack).decode


class Remote:
    """A server at `url`, the prefix of its endpoints. The client is the caller's to open and close."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url.rstrip("/")
        parsed = httpx.URL(self._url)
        #: The URL without the credentials that it may hold.
        self.name = str(parsed.copy_with(userinfo=b""))

    async def served(self, headers: Mapping[str, str] = EMPTY) -> Served:
        """What the server answers, from its own description, else from its OpenAPI document.

        Raises:
            NotReady: nobody is there, or the server is loading. ProtocolError: it is no server of endpoints.
        """
        try:
            described = await self._get("/-/endpoints", headers)
            if isinstance(described, dict) and isinstance(described.get("endpoints"), list):
                found = map(endpoint_of, described["endpoints"])
                return Served({endpoint.name: endpoint for endpoint in found}, ours=True)
        except (UnknownEndpoint, ProtocolError):
            pass  # not one of ours
        document = await self._get("/openapi.json", headers)
        if not isinstance(document, dict) or "paths" not in document:
            raise ProtocolError(
                f"{self.name}/openapi.json is no OpenAPI document; expected a server of endpoints there"
            )
        return Served(endpoints_of(document), ours=False, by_get=streams_by_get(document))

    async def close(self) -> None:
        """Close what it has opened itself: nothing, over HTTP."""
        return

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool:
        """Whether the server says that it can answer."""
        try:
            told_ready = await self._get("/dry_run", headers)
            return isinstance(told_ready, dict) and told_ready.get("code") == 0
        except UnknownEndpoint:  # a Jina Deployment has no such route, and serves when it answers
            return bool((await self.served(headers)).endpoints)

    async def ask(self, asked: Asked, *, media: str = JSON, path: str | None = None) -> Answer:
        """One call.

        Args:
            asked: what is asked.
            media: the form of the body and of the answer.
            path: where to send it, if not to the endpoint's own path.

        Raises:
            Whatever the server says, as ours; NotReady where it cannot be reached, ReplicaDied where the connection
            broke, DeadlineExceeded, ProtocolError.
        """
        async with until(asked):
            with self._surfaced():
                response = await self._http.post(
                    self._url + (path or asked.endpoint),
                    **_sent(asked, media, {"accept": _accepts(asked, media)}),
                )
        if response.status_code != 200:
            raise told(response.status_code, response.headers, response.content)
        return self._answer(response)

    async def events(self, asked: Asked, *, media: str = JSON, get: bool = False) -> AsyncGenerator[Answer, None]:
        """One stream, an answer of one document after another. `get` asks as Jina's streams are asked: by a bare document.

        In JSON or msgpack, as `media` says, a server of another version answers in JSON.

        Closing it early closes the response, which tells the server that its client left.

        Raises:
            As `ask`; ReplicaDied too where the stream ends without saying that it is over.
        """
        async with aclosing(self._steps(asked, media, get)) as steps:
            while True:
                async with until(asked):
                    event = await anext(steps, None)
                if event is None or event.name == "end":
                    break
                if event.name == "error":
                    body = event.data if isinstance(event.data, dict) else {"detail": event.data}
                    raise told_as(500, body)
                if event.name in ("update", "packed"):
                    yield _step(event)
        if event is None:
            raise ReplicaDied(f"the stream of {asked.endpoint} from {self.name} broke off")

    async def _steps(self, asked: Asked, media: str, get: bool) -> AsyncGenerator[Any, None]:
        if get:
            content_type = {"content-type": JSON, "accept": _STREAMS[JSON]}
            sent: dict[str, Any] = {"content": _bare(asked), "headers": _headers(asked) | content_type}
        else:
            sent = _sent(asked, media, {"accept": _told(asked, media, _STREAMS[media])})
        request = self._http.build_request(
            "GET" if get else "POST",
            self._url + asked.endpoint,
            **sent,
        )
        with self._surfaced():
            response = await self._http.send(request, stream=True)
            try:
                if response.status_code != 200:
                    raise told(response.status_code, response.headers, await response.aread())
                packed = "data=msgpack" in response.headers.get("content-type", "")
                async with aclosing(events(response)) as steps:
                    async for event in steps:
                        yield event._replace(name="packed") if packed and event.name == "update" else event
            finally:
                await response.aclose()

    async def _get(self, path: str, headers: Mapping[str, str] = EMPTY) -> Any:
        with self._surfaced():
            response = await self._http.get(self._url + path, headers={"accept": JSON, **headers})
        if response.status_code != 200:
            raise told(response.status_code, response.headers, response.content)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise self._unexpected(response) from error

    def _answer(self, response: httpx.Response) -> Answer:
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if media == MSGPACK:
                packed = _unpack(response.content)
                rest = packed.parameters or {}, packed.header or {}
                if isinstance(packed.data, dict):
                    return Answer([], MSGPACK, *rest, columns=packed.data["columns"])
                return Answer([bytes(raw) for raw in packed.data], MSGPACK, *rest)
            body = msgspec.convert(orjson.loads(response.content), _Json)
        except (msgspec.MsgspecError, KeyError, ValueError, RecursionError) as error:
            raise self._unexpected(response) from error
        return Answer(body.data or [], JSON, body.parameters or {}, body.header or {}, tuple(body.routes or ()))

    def _unexpected(self, response: httpx.Response) -> ProtocolError:
        found = response.headers.get("content-type", "no content type")
        return ProtocolError(f"{self.name} answered {found} that is no answer of an endpoint; is it the right URL?")

    @contextmanager
    def _surfaced(self) -> Iterator[None]:
        """What goes wrong between here and the server, as ours."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotReady(f"cannot connect to {self.name}: {error}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ReplicaDied(
                f"the connection to {self.name} broke ({type(error).__name__}); the call may have taken effect"
            ) from error
        except orjson.JSONDecodeError as error:
            raise ProtocolError(f"{self.name} sent an event that is no JSON") from error


def _sent(asked: Asked, media: str, accept: Mapping[str, str]) -> dict[str, Any]:
    """A request's body and headers, as httpx takes them."""
    if asked.files:
        return {"data": asked.form(), "files": asked.files, "headers": {**_headers(asked), **accept}}
    return {"content": asked.body(media), "headers": {**_headers(asked), "content-type": media, **accept}}


def _step(event: Event) -> Answer:
    """The answer that one document of a stream is.

    Raises:
        ProtocolError: its data is no base64.
    """
    if event.name == "update":
        return Answer([event.data], JSON, EMPTY, EMPTY)
    try:
        return Answer([base64.b64decode(event.data, validate=True)], MSGPACK, EMPTY, EMPTY)
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"a stream sent an event that is no base64: {error}") from error


def _headers(asked: Asked) -> dict[str, str]:
    headers = dict(asked.headers)
    if asked.deadline is not None:
        headers["x-request-timeout"] = f"{max(0.0, asked.deadline - time.monotonic()):.6f}"
    return headers


def _accepts(asked: Asked, media: str) -> str:
    return f"{media}; columns=true" if asked.columns and media == MSGPACK else _told(asked, media, media)


def _told(asked: Asked, media: str, accept: str) -> str:
    return f"{accept}; json=true" if asked.with_json and media == MSGPACK else accept


def _bare(asked: Asked) -> bytes:
    """The document alone, as Jina's streams take it.

    Raises:
        InvalidRequest: there are parameters, which such a stream does not take.
    """
    if asked.parameters:
        raise InvalidRequest(f"{asked.endpoint} of this server streams by GET, which takes no parameters")
    codec: Codec = asked.docs.codec
    docs = codec.to_values(asked.docs.typed)
    if len(docs) != 1:
        raise InvalidDocs(f"{asked.endpoint} takes one document, got {len(docs)}")
    return codec.dumps_request(docs[0])


@asynccontextmanager
async def until(asked: Asked) -> AsyncIterator[None]:
    """Ends what it surrounds with DeadlineExceeded when the call's deadline passes."""
    left = None if asked.deadline is None else asked.deadline - time.monotonic()
    if left is not None and left <= 0:
        raise _late(asked)
    limit = asyncio.timeout(left)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise _late(asked) from None


def _late(asked: Asked) -> DeadlineExceeded:
    """Made where it is raised: a frame that an error's traceback holds, and that names the error, is a cycle."""
    return DeadlineExceeded(f"the deadline of this call to {asked.endpoint} has passed")
