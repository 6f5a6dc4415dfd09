"""The transport over gRPC, in Jina's protocol: to a server of this library, or to a Flow or Deployment of a real Jina.

A call is sent once: a call that fails in transit may have run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import orjson
from google.protobuf.message import DecodeError

from jina_asgi.concurrency.offload import parse_if
from jina_asgi.concurrency.tasks import cancel_requests
from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    InvalidRequest,
    JinaASGIError,
    ProtocolError,
    ReplicaDied,
    TooLarge,
    Unauthenticated,
    UnknownEndpoint,
)
from jina_asgi.protocols.frames._heads import error_by_name
from jina_asgi.protocols.grpc.channels import Channels, Dialling, Line
from jina_asgi.protocols.grpc.discovery import ENDPOINTS, SERVING, HealthRequest, HealthResponse, endpoints_of
from jina_asgi.protocols.grpc.rpc import EXPECTED, metadata_of
from jina_asgi.protocols.protobuf.messages import (
    SUCCESS,
    DataRequest,
    EndpointsProto,
    SingleDocumentRequest,
    StatusProto,
)
from jina_asgi.protocols.remote.protobuf_answers import ProtobufAnswer, request_of, single_request_of
from jina_asgi.protocols.remote.runner import RemoteRunner
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer, ServerDescription, Transport, until
from jina_asgi.protocols.size_guard import PROTOBUF, is_heavy
from jina_asgi.types import EMPTY, Endpoint

_POST = "/jina.JinaSingleDataRequestRPC/process_single_data"
_STREAM = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
_DISCOVER = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"
_DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"
_FOREVER = 1e8  # seconds: gRPC turns larger numbers into times in the past
_BY_CODE: Mapping[Any, type[JinaASGIError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLarge,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: UnknownEndpoint,
    grpc.StatusCode.NOT_FOUND: UnknownEndpoint,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.CANCELLED: ReplicaDied,
}


class GrpcRemote(Transport):
    """A server, or several equivalent ones, each call to the next one.

    Args:
        channels: the connections; the caller closes them.
        metadata: sent with every call.
    """

    def __init__(self, channels: Channels, metadata: Mapping[str, str] = EMPTY) -> None:
        super().__init__(channels.name)
        self._channels, self._metadata = channels, metadata

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        """Describes the server: by its own description, else by the one for Jina's gateways.

        Raises:
            NotReady: there is no server, or it is loading. ProtocolError: it is not a server of endpoints.
        """
        line = await self._channels.line()
        try:
            described = orjson.loads(await self._unary(line, ENDPOINTS, b"", headers, None))
            return ServerDescription.of_ours(described)
        except UnknownEndpoint:
            pass  # not a server of this library
        try:
            message = EndpointsProto.FromString(await self._unary(line, _DISCOVER, b"", headers, None))
        except (UnknownEndpoint, DecodeError) as error:
            raise ProtocolError(f"{self.name} answers gRPC, but not Jina's protocol: {error}") from error
        return ServerDescription(endpoints_of(message), ours=False)

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool:
        """Whether the server reports that it can answer."""
        line = await self._channels.line()
        try:
            status = StatusProto.FromString(await self._unary(line, _DRY_RUN, b"", headers, None))
        except UnknownEndpoint:  # Jina's Executors have no such method, and serve when they answer
            return await super().ready(headers)
        return bool(status.code == SUCCESS)

    async def close(self) -> None:
        """Close the connections."""
        await self._channels.close()

    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        raw = await parse_if(request.is_heavy(PROTOBUF), None, lambda: request_of(request).SerializeToString())
        line = await self._line(request)
        return await self._answer(DataRequest, await self._unary(line, _POST, raw, request.headers, request.deadline))

    async def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        heavy = request.is_heavy(PROTOBUF)
        message = await parse_if(heavy, None, lambda: single_request_of(request).SerializeToString())
        line = await self._line(request)
        call = line.stream(_STREAM, message, **self._options(request.headers, request.deadline))
        try:
            while True:
                with self._converted_errors():
                    raw = await call.read()
                if raw is grpc.aio.EOF:
                    break
                yield await self._answer(SingleDocumentRequest, raw)
            with self._converted_errors():
                await self._ended(call)
        finally:
            call.cancel()

    async def _ended(self, call: Any) -> None:
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise self._error_of(code, await call.details(), await call.trailing_metadata())

    async def _line(self, request: OutgoingRequest) -> Line:
        async with until(request):
            return await self._channels.line()

    async def _unary(
        self, line: Line, method: str, raw: bytes, headers: Mapping[str, str], deadline: float | None
    ) -> bytes:
        with self._converted_errors():
            answer: bytes = await line.unary(method, raw, **self._options(headers, deadline))
        return answer

    def _options(self, headers: Mapping[str, str], deadline: float | None) -> dict[str, Any]:
        found, unfit = metadata_of({**self._metadata, **headers})
        if unfit:
            raise InvalidRequest(f"over gRPC expected headers with {EXPECTED}; got {', '.join(map(repr, unfit))}")
        return {
            "metadata": found or None,
            "timeout": None if deadline is None else min(max(0.0, deadline - time.monotonic()), _FOREVER),
        }

    async def _answer(self, kind: Any, raw: bytes) -> ProtobufAnswer:
        heavy = is_heavy(PROTOBUF, raw)
        try:
            message = await parse_if(heavy, None, kind.FromString, raw)
            return ProtobufAnswer.of(message, heavy=heavy)
        except DecodeError as error:
            raise ProtocolError(f"{self.name} answered with bytes that are not a message of Jina's: {error}") from error

    @contextmanager
    def _converted_errors(self) -> Iterator[None]:
        """Converts gRPC's errors to those of this library."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._error_of(error.code(), error.details(), error.trailing_metadata()) from error
        except grpc.aio.UsageError as error:
            raise self._closed() from error
        except asyncio.CancelledError as error:
            if cancel_requests():
                raise
            raise self._closed() from error  # gRPC cancels the open calls of a closing channel

    def _closed(self) -> ReplicaDied:
        return ReplicaDied(f"the connection to {self.name} is closed; the call may have taken effect")

    def _error_of(self, code: Any, details: str | None, trailers: Any) -> JinaASGIError:
        said = dict(tuple(trailers or ()))  # not a mapping, in older versions too
        message = details or code.name
        named = said.get("jina-asgi-error")
        if isinstance(named, str):
            wait = said.get("retry-after-ms", "")
            facts = {"retry_after": int(wait) / 1000} if wait.isdecimal() else {}
            found = error_by_name(named, message, facts)
            if found is not None:
                return found
        if code is grpc.StatusCode.UNAVAILABLE:
            if message.startswith(("failed to connect", "connections to all")):
                return self.unreachable(message)
            return self.cut_off(message)
        kind = _BY_CODE.get(code, ExecutorError)
        return kind(f"{self.name}: {message}")


class GrpcRunner(RemoteRunner):
    """The endpoints of a server, as a Runner.

    Args:
        targets: "host:port" or "unix:/path" of the server, or of several equivalent ones: each call goes to the
            next available one.
        dialling: the options of connections.
        metadata: sent with every call.
        endpoints, grace, startup_timeout: as in `RemoteRunner`.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        dialling: Dialling | None = None,
        metadata: Mapping[str, str] = EMPTY,
        endpoints: Mapping[str, Endpoint] | None = None,
        grace: float = 30.0,
        startup_timeout: float = 30.0,
    ) -> None:
        super().__init__(
            ", ".join(targets),
            lambda: GrpcRemote(Channels(tuple(targets), dialling or Dialling()), metadata),
            endpoints=endpoints,
            grace=grace,
            startup_timeout=startup_timeout,
        )

    def _forwarded(self, headers: dict[str, str]) -> dict[str, str]:
        _, unfit = metadata_of(headers)
        return {key: text for key, text in headers.items() if key not in unfit} if unfit else headers


_HEALTH = "/grpc.health.v1.Health/Check"


def ping_problem(target: str, *, whole: bool, timeout: float, tls: bool = False) -> str:
    """Why a server cannot answer; "" if it can.

    Args:
        target: "host:port".
        whole: check a whole Flow, as Jina's clients do; else the server's own health.
        timeout: in seconds.
        tls: encrypt, and trust gRPC's own CAs.
    """
    credentials = grpc.ssl_channel_credentials() if tls else None
    opened = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
    with opened as channel:
        try:
            if whole:
                status = StatusProto.FromString(channel.unary_unary(_DRY_RUN)(b"", timeout=timeout))
                return "" if status.code == SUCCESS else str(status.description or "it says that it is not ready")
            raw = channel.unary_unary(_HEALTH)(HealthRequest().SerializeToString(), timeout=timeout)
            return "" if HealthResponse.FromString(raw).status == SERVING else "it says that it is not serving"
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        except DecodeError as error:
            return f"it answered what is no message of this protocol: {error}"
