"""The transport over HTTP: a server's endpoints, single calls, and streams of events.

Servers of this library are sent msgpack; any other, a real Jina among them, JSON. Errors are raised as this library's
own.

A Runner that calls a server at a URL over HTTP.

The server may be any application of this library, at the root or behind a prefix, or a real Jina.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import httpx
import msgspec
import orjson

from jina_asgi.concurrency.offload import LARGE, parse_if
from jina_asgi.documents import tensors
from jina_asgi.documents.codec import Codec
from jina_asgi.errors import (
    DefinitionError,
    InvalidDocs,
    InvalidRequest,
    ProtocolError,
    ReplicaDied,
    UnknownEndpoint,
)
from jina_asgi.protocols.http.asgi_transport import Event, events
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from jina_asgi.protocols.http.openapi_reader import endpoints_of, streams_by_get
from jina_asgi.protocols.problems import error_in, error_of
from jina_asgi.protocols.remote.runner import RemoteRunner
from jina_asgi.protocols.remote.transport import (
    OutgoingRequest,
    ServerAnswer,
    ServerDescription,
    Transport,
    steps_until,
    until,
)
from jina_asgi.protocols.size_guard import is_heavy
from jina_asgi.types import EMPTY, Endpoint

#: httpx itself has no timeouts here, as a call has a deadline or none; only connecting has one.
TIMEOUT = httpx.Timeout(None, connect=10.0)
#: Requests beyond this number wait for a free connection.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


class _Packed(msgspec.Struct):
    data: list[msgspec.Raw] | dict[str, Any]
    parameters: dict[str, Any] | None = None
    header: dict[str, Any] | None = None


#: The accepted media type of a stream, by the media type of its request.
_STREAMS = {JSON: "text/event-stream", MSGPACK: "text/event-stream; data=msgpack"}
_unpack = msgspec.msgpack.Decoder(_Packed, ext_hook=tensors.unpack).decode


class ServerClient(Transport):
    """Sends requests to the server at `url`, the prefix of its endpoints. The caller opens and closes the httpx client."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url.rstrip("/")
        self._description = ServerDescription({}, ours=False)
        super().__init__(str(httpx.URL(self._url).copy_with(userinfo=b"")))  # without credentials, if the URL has any

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        """Fetches the server's description, else builds it from its OpenAPI document."""
        self._description = await self._describe(headers)
        return self._description

    async def _describe(self, headers: Mapping[str, str]) -> ServerDescription:
        try:
            described = await self._get("/-/endpoints", headers)
            if isinstance(described, dict) and isinstance(described.get("endpoints"), list):
                return ServerDescription.of_ours(described["endpoints"])
        except (UnknownEndpoint, ProtocolError):
            pass  # not a server of this library
        document = await self._get("/openapi.json", headers)
        if not isinstance(document, dict) or "paths" not in document:
            raise ProtocolError(
                f"{self.name}/openapi.json is not an OpenAPI document; expected a server of endpoints there"
            )
        return ServerDescription(endpoints_of(document), ours=False, by_get=streams_by_get(document))

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool:
        """Whether the server reports that it is ready."""
        try:
            dry_run = await self._get("/dry_run", headers)
            return isinstance(dry_run, dict) and dry_run.get("code") == 0
        except UnknownEndpoint:  # a Jina Deployment has no such route, and serves when it answers
            return await super().ready(headers)

    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        media = self._media
        async with until(request):
            with self._converted_errors():
                accept = {"accept": _accepts(request, media)}
                arguments = await parse_if(request.is_heavy(media), None, _request_arguments, request, media, accept)
                response = await self._http.post(self._url + request.endpoint, **arguments)
        if response.status_code != 200:
            raise error_of(response.status_code, response.headers, response.content)
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        heavy = is_heavy(media, response.content)
        return await parse_if(heavy, None, self._answer, response, media, heavy)

    async def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        """Opens one stream, by GET if the server's streams need that.

        A server of another version may answer a request for msgpack in JSON.
        Closing the stream early closes the response, from which the server sees that the client left.

        Raises:
            As `ask`; also ReplicaDied if the stream ends without its end event.
        """
        async with aclosing(steps_until(request, self._steps(request))) as steps:
            async for event in steps:
                if event.name == "end":
                    return
                if event.name == "error":
                    body = event.data if isinstance(event.data, dict) else {"detail": event.data}
                    raise error_in(body)
                if event.name in ("update", "packed"):
                    heavy = isinstance(event.data, str) and len(event.data) >= LARGE
                    yield await parse_if(heavy, None, _stream_answer, event)
        raise ReplicaDied(f"the stream of {request.endpoint} from {self.name} broke off")

    async def _steps(self, request: OutgoingRequest) -> AsyncGenerator[Any, None]:
        media, get = self._media, request.endpoint in self._description.by_get
        if get:
            content_type = {"content-type": JSON, "accept": _STREAMS[JSON]}
            sent: dict[str, Any] = {"content": _single_document(request), "headers": _headers(request) | content_type}
        else:
            accept = {"accept": _with_json(request, media, _STREAMS[media])}
            sent = await parse_if(request.is_heavy(media), None, _request_arguments, request, media, accept)
        built = self._http.build_request("GET" if get else "POST", self._url + request.endpoint, **sent)
        with self._converted_errors():
            response = await self._http.send(built, stream=True)
            try:
                if response.status_code != 200:
                    raise error_of(response.status_code, response.headers, await response.aread())
                packed = "data=msgpack" in response.headers.get("content-type", "")
                async with aclosing(events(response)) as steps:
                    async for event in steps:
                        yield event._replace(name="packed") if packed and event.name == "update" else event
            finally:
                await response.aclose()

    @property
    def _media(self) -> str:
        return MSGPACK if self._description.ours else JSON

    async def _get(self, path: str, headers: Mapping[str, str] = EMPTY) -> Any:
        with self._converted_errors():
            response = await self._http.get(self._url + path, headers={"accept": JSON, **headers})
        if response.status_code != 200:
            raise error_of(response.status_code, response.headers, response.content)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise self._unexpected(response) from error

    def _answer(self, response: httpx.Response, media: str, heavy: bool) -> ServerAnswer:
        raw = response.content
        try:
            if media == MSGPACK:
                packed = _unpack(raw)
                rest = packed.parameters or {}, packed.header or {}
                if isinstance(packed.data, dict):
                    return ServerAnswer([], MSGPACK, *rest, columns=packed.data["columns"], heavy=heavy)
                return ServerAnswer([bytes(raw) for raw in packed.data], MSGPACK, *rest, heavy=heavy)
            return ServerAnswer.of_json(raw, heavy=heavy)
        except (msgspec.MsgspecError, KeyError, ValueError, RecursionError, InvalidRequest) as error:
            raise self._unexpected(response) from error

    def _unexpected(self, response: httpx.Response) -> ProtocolError:
        found = response.headers.get("content-type", "no content type")
        return ProtocolError(f"{self.name} answered {found} that is not an answer of an endpoint; is it the right URL?")

    @contextmanager
    def _converted_errors(self) -> Iterator[None]:
        """Converts the errors of httpx to those of this library."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self.unreachable(error) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self.cut_off(type(error).__name__) from error
        except orjson.JSONDecodeError as error:
            raise ProtocolError(f"{self.name} sent an event that is not JSON") from error


def _request_arguments(request: OutgoingRequest, media: str, accept: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of an httpx request: body and headers."""
    if request.files:
        return {"data": request.form(), "files": request.files, "headers": {**_headers(request), **accept}}
    return {"content": request.body(media), "headers": {**_headers(request), "content-type": media, **accept}}


def _stream_answer(event: Event) -> ServerAnswer:
    """Decodes one document of a stream.

    Raises:
        ProtocolError: its data is not base64.
    """
    if event.name == "update":
        return ServerAnswer([event.data], JSON, EMPTY, EMPTY)
    try:
        raw = base64.b64decode(event.data, validate=True)
        return ServerAnswer([raw], MSGPACK, EMPTY, EMPTY, heavy=is_heavy(MSGPACK, raw))
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"a stream sent an event that is not base64: {error}") from error


def _headers(request: OutgoingRequest) -> dict[str, str]:
    headers = dict(request.headers)
    if (left := request.time_left) is not None:
        headers["x-request-timeout"] = f"{left:.6f}"
    return headers


def _accepts(request: OutgoingRequest, media: str) -> str:
    return f"{media}; columns=true" if request.columns and media == MSGPACK else _with_json(request, media, media)


def _with_json(request: OutgoingRequest, media: str, accept: str) -> str:
    return f"{accept}; json=true" if request.with_json and media == MSGPACK else accept


def _single_document(request: OutgoingRequest) -> bytes:
    """Encodes the single document of a stream by GET.

    Raises:
        InvalidRequest: there are parameters, which such a stream does not take.
        InvalidDocs: there is not exactly one document.
    """
    if request.parameters:
        raise InvalidRequest(f"{request.endpoint} of this server streams by GET, which takes no parameters")
    codec: Codec = request.docs.codec
    docs = codec.to_values(request.docs.typed)
    if len(docs) != 1:
        raise InvalidDocs(f"{request.endpoint} takes one document, got {len(docs)}")
    return codec.dumps_request(docs[0])


class HttpRunner(RemoteRunner):
    """The endpoints of an HTTP server, as a Runner. Credentials for the server belong to `http`.

    Args:
        url: the prefix of the server's endpoints, such as "http://models:8000/lm".
        http: the client to use, which its owner opens and closes; by default each lifespan has its own.
        transport: the transport of the client that a lifespan makes.
        endpoints, grace, startup_timeout: as in `RemoteRunner`.

    Raises:
        DefinitionError: the URL is not an HTTP URL.
    """

    def __init__(
        self,
        url: str,
        *,
        http: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"{type(self).__name__}({url!r}): expected a URL such as 'http://models:8000/lm'")
        opens = partial(_opened, url, http, transport)
        super().__init__(url, opens, endpoints=endpoints, grace=grace, startup_timeout=startup_timeout)


@asynccontextmanager
async def _opened(
    url: str, http: httpx.AsyncClient | None, transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[ServerClient]:
    if http is not None:
        yield ServerClient(http, url)
        return
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT, limits=LIMITS) as own:
        yield ServerClient(own, url)
