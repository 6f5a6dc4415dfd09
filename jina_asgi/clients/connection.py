"""A Client's connection to its server on one event loop: requests asked, and asked again, each answered by a Response."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from itertools import islice
from typing import Any, NamedTuple, Self

import httpx
from pydantic import BaseModel

from jina_asgi.clients.address import Address
from jina_asgi.clients.inputs import Part, batches, parts_of
from jina_asgi.clients.posts import CallOptions, may_repeat
from jina_asgi.clients.responses import NOTHING, Header, Response, Route, Status, raised, routes_of, status_of
from jina_asgi.concurrency.offload import parse_if
from jina_asgi.concurrency.process_wide import ProcessLock
from jina_asgi.documents.codec import Codec, codec, codec_of
from jina_asgi.errors import JinaASGIError, UnknownEndpoint
from jina_asgi.excepts import BadClientInput, NotSupportedError
from jina_asgi.protocols.http.asgi_transport import ASGITransport
from jina_asgi.protocols.remote.server import LIMITS, TIMEOUT, ServerClient
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer, ServerDescription, Transport
from jina_asgi.settings import ClientSettings
from jina_asgi.settings.jina_options import as_jina
from jina_asgi.types import EMPTY, Endpoint, resolve, untyped_endpoint


class ClientSession:
    """The connections of one Client on the loop that uses it."""

    def __init__(
        self,
        address: Address,
        settings: ClientSettings,
        app: Any = None,
        *,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._remote, self._http = _Connected.to(address, settings, app)
        if settings.tracing:
            self._remote = _traced(self._remote, address, settings)
        self._protocol = address.protocol
        self._draw = draw
        self._served: ServerDescription | None = None
        self._describing = asyncio.Lock()

    async def ask(self, docs: list[BaseModel], call: CallOptions) -> Response:
        """One request, as often as its retries say; an error is in the response.

        Raises:
            BadClientInput: the request makes no sense. BadClient: the answer does not fit `return_type`.
        """
        writer = codec_of(type(docs[0])) if docs else codec(NOTHING)
        identity, attempt, deadline = uuid.uuid4().hex, 0, _deadline(call)
        files = await self._files(call)
        while True:
            attempt += 1
            idempotent = False
            try:
                served = await self._describe(call.headers)
                endpoint = self._endpoint(served, call.on)
                idempotent = endpoint.idempotent
                if endpoint.kind == "stream":
                    raise BadClientInput(
                        f"{endpoint.name} streams its answer; ask for a stream: stream_doc, or --stream on the command line"
                    )
                request = _request(call, endpoint, writer, docs, identity, deadline, files)
                answer = await self._remote.ask(request)
            except JinaASGIError as error:
                if isinstance(error, UnknownEndpoint):
                    self._served = None  # the server may be another one by now
                last = attempt >= call.retries.max_attempts
                if last or not may_repeat(error, idempotent=idempotent):
                    return _failed_response(call, docs, identity, error, writer)
                await asyncio.sleep(call.retries.wait(attempt, error, self._draw))
            else:
                return await parse_if(answer.heavy, None, _response, call, answer, identity)

    async def stream(self, doc: BaseModel, call: CallOptions) -> AsyncGenerator[Any, None]:
        """The documents of one stream. Closing it stops the server's work.

        Raises:
            As `posts.Handling.settle`, at the first step or a later one.
        """
        identity, writer = uuid.uuid4().hex, codec_of(type(doc))
        files = await self._files(call)
        try:
            served = await self._describe(call.headers)
            if not served.streams:
                raise BadClientInput("Jina's WebSocket has no streams; ask its server over gRPC or HTTP")
            endpoint = self._endpoint(served, call.on)
            if endpoint.kind != "stream":
                raise BadClientInput(f"{endpoint.name} answers at once; ask it with post")
            if call.parameters and endpoint.name in served.by_get:
                raise BadClientInput(f"{endpoint.name} of this server streams by GET, which takes no parameters")
            request = _request(call, endpoint, writer, [doc], identity, _deadline(call), files)
            async with aclosing(self._remote.events(request)) as steps:
                async for answer in steps:
                    yield (await parse_if(answer.heavy, None, call.returns.read, answer))[0]
        except JinaASGIError as error:
            raise raised(_failed_response(call, [doc], identity, error, writer)) from error

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool:
        """Whether the server says that it can answer; False where there is none."""
        try:
            return await self._remote.ready(headers)
        except JinaASGIError:
            return False

    async def close(self) -> None:
        """Close what is connected."""
        await self._remote.close()
        if self._http is not None:
            await self._http.aclose()

    async def _files(self, call: CallOptions) -> tuple[Part, ...]:
        """The files that go along, read beside the loop.

        Raises:
            BadClientInput: they cannot be read, or not be sent.
        """
        if call.files is None:
            return ()
        if self._protocol != "http":
            raise BadClientInput(f"files go over HTTP alone, and this Client speaks {self._protocol}")
        return await asyncio.to_thread(parts_of, call.files)

    async def _describe(self, headers: Mapping[str, str]) -> ServerDescription:
        """What the server serves, asked for once."""
        if self._served is None:
            async with self._describing:
                if self._served is None:
                    self._served = await self._remote.served(headers)
        return self._served

    def _endpoint(self, served: ServerDescription, name: str) -> Endpoint:
        endpoint = resolve(served.endpoints, name)
        if endpoint is None and as_jina() and self._protocol != "http":  # they give the documents back
            return untyped_endpoint(name)
        if endpoint is None:
            known = ", ".join(served.endpoints) or "none"
            raise UnknownEndpoint(f"{self._remote.name} has neither it nor '/default'; it has {known}")
        return endpoint


class _Connected(NamedTuple):
    """What a Client's calls are sent to, and what has to be closed after it."""

    remote: Transport
    http: httpx.AsyncClient | None = None

    @classmethod
    def to(cls, address: Address, settings: ClientSettings, app: Any) -> Self:
        """A server's address, or an application in this process.

        Raises:
            NotSupportedError: gRPC cannot be used in this process.
        """
        if address.protocol == "grpc":
            from jina_asgi.protocols.grpc.channels import Channels, Dialling, cut_off  # with grpcio, an extra
            from jina_asgi.protocols.grpc.remote import GrpcRemote

            if why := cut_off():
                raise NotSupportedError(why)
            dialling = Dialling.of(
                tls=address.tls,
                roots=settings.verify,
                certificate=settings.cert,
                options=settings.grpc_channel_options,
                compression=settings.compression,
            )
            return cls(GrpcRemote(Channels([address.target, *address.others], dialling), settings.headers))
        http = httpx.AsyncClient(
            transport=None if app is None else ASGITransport(app),
            timeout=TIMEOUT,
            limits=LIMITS,
            headers=settings.headers,
            verify=settings.verify,
            trust_env=settings.proxy,
        )
        if address.protocol == "http":
            return cls(ServerClient(http, address.url), http)
        return cls(_websocket_transport(http, address.url, settings), http)


def _traced(remote: Transport, address: Address, settings: ClientSettings) -> Transport:
    """Records the spans of requests.

    Raises:
        NotSupportedError: OpenTelemetry is missing.
    """
    try:
        from jina_asgi.clients.tracing import TracedTransport  # with OpenTelemetry, an extra
    except ImportError as error:
        raise NotSupportedError(f"tracing needs the extra otel: pip install 'jina-asgi[otel]' ({error})") from error
    return TracedTransport(remote, address, settings)


def _websocket_transport(http: httpx.AsyncClient, url: str, settings: ClientSettings) -> Transport:
    """Creates the transport over a WebSocket, for a server of this library or a real Jina."""
    from jina_asgi.protocols.websocket.dial import dialler  # with websockets, an extra
    from jina_asgi.protocols.websocket.remote import (
        AutoDetectTransport,  # where it is asked for
        SocketRemote,
    )

    def jinas() -> Transport:
        try:
            from jina_asgi.protocols.websocket.binary_remote import BinaryRemote  # with protobuf, an extra
        except ModuleNotFoundError as error:
            raise NotSupportedError(
                f"{url} is a real Jina, whose WebSocket needs the extra grpc: pip install 'jina-asgi[grpc]'"
            ) from error
        return BinaryRemote(http, url, dialler(verify=settings.verify, proxy=settings.proxy, subprotocol="bytes"))

    ours = SocketRemote(http, url, dialler(verify=settings.verify, proxy=settings.proxy))
    return AutoDetectTransport(http, url, ours, jinas)


def _deadline(call: CallOptions) -> float | None:
    return None if call.timeout is None else time.monotonic() + call.timeout


def _request(
    call: CallOptions,
    endpoint: Endpoint,
    writer: Codec,
    docs: list[BaseModel],
    identity: str,
    deadline: float | None,
    files: tuple[Part, ...],
) -> OutgoingRequest:
    header = {"request_id": identity, "exec_endpoint": call.on}
    if call.target_executor:
        header["target_executor"] = call.target_executor
    return OutgoingRequest(
        endpoint=endpoint.name,
        docs=writer.docs(list(docs)),
        parameters=call.parameters,
        header=header,
        headers=call.headers,
        deadline=deadline,
        columns=call.returns.is_array,
        files=files,
    )


def _response(call: CallOptions, answer: ServerAnswer, identity: str) -> Response:
    docs = call.returns.read(answer)
    header = Header(str(answer.header.get("request_id") or identity), Status(), call.on, call.target_executor or "")
    return Response(docs, answer.parameters, header, list(map(Route.of, answer.routes)), codec=call.returns.codec)


def _failed_response(
    call: CallOptions, docs: list[BaseModel], identity: str, error: JinaASGIError, writer: Codec
) -> Response:
    header = Header(identity, status_of(error), call.on, call.target_executor or "")
    return Response(writer.wrap(list(docs)), call.parameters, header, routes_of(error), error, codec=writer)


class BaseClient:
    """A Client's server, and the limit of requests that are open at the same time."""

    def __init__(self, address: Address, settings: ClientSettings, *, prefetch: int = 1000, app: Any = None) -> None:
        if prefetch < 1:
            raise BadClientInput(f"prefetch={prefetch}: expected at least 1, the number of requests open at once")
        self.address, self._settings, self._prefetch, self._app = address, settings, prefetch, app
        self._connections: dict[asyncio.AbstractEventLoop, ClientSession] = {}
        self._lock = ProcessLock()

    @staticmethod
    def check_input(inputs: Any) -> None:
        """Reads the first document of `inputs` to check it.

        Raises:
            BadClientInput: the inputs are invalid.
        """
        for _ in islice(batches(inputs, 1), 1):
            return

    def _connection(self, loop: asyncio.AbstractEventLoop) -> ClientSession:
        """The session of an event loop, made on first use; sessions of closed loops are dropped."""
        with self._lock:  # threads may share a Client, and every session has to be closed
            found = self._connections.get(loop)
            if found is None:
                for other in [other for other in self._connections if other.is_closed()]:
                    del self._connections[other]
                found = ClientSession(self.address, self._settings, self._app)
                self._connections[loop] = found
            return found

    def _ahead(self, prefetch: int | None) -> int:
        if prefetch is not None and prefetch < 1:
            raise BadClientInput(f"prefetch={prefetch}: expected at least 1, the number of requests open at once")
        return prefetch or self._prefetch
