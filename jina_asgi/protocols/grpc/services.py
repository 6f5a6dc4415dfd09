"""Jina's services, and gRPC's optional reflection, as handlers for grpc.aio.

gRPC's optional reflection: the names of services, and the descriptions of their messages.

A Jina Flow first requests the services of an external Executor.

With `auth` the caller is authenticated by its metadata before a message is read. grpcio reads the message of a unary method
at once; so unary methods then have handlers of streams, which are the same for a client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from jina_asgi.protocols.grpc import discovery
from jina_asgi.protocols.grpc.bidi_call import Conversation, draining
from jina_asgi.protocols.grpc.discovery import POOL, ReflectionRequest, ReflectionResponse
from jina_asgi.protocols.grpc.rpc import caller_of, headers_of, refuse
from jina_asgi.protocols.http.answers import described
from jina_asgi.protocols.problems import as_json
from jina_asgi.protocols.protobuf import messages
from jina_asgi.protocols.protobuf.messages import JinaInfoProto
from jina_asgi.protocols.protobuf.request_handler import EncodedAnswer, RequestHandler
from jina_asgi.protocols.service import CallerInfo, Service

_NAME = "grpc.reflection.{}.ServerReflection"
_NOT_FOUND, _UNIMPLEMENTED = 5, 12


class Reflection:
    """Answers reflection requests about some services, in both versions of the protocol."""

    def __init__(self, services: Sequence[str], service: Service) -> None:
        self._services = sorted([*services, *map(_NAME.format, ReflectionRequest)])
        self._service = service

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        return {
            f"/{_NAME.format(version)}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._of(version))
            for version in ReflectionRequest
        }

    def _of(self, version: str) -> Any:
        async def answer(_: Any, context: Any) -> None:
            try:
                await self._service.authenticate("/-/endpoints", headers_of(context))
            except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
                await refuse(context, error, self._service)
            while (raw := await context.read()) is not grpc.aio.EOF:
                try:
                    asked = ReflectionRequest[version].FromString(raw)
                except DecodeError:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a ServerReflectionRequest")
                try:
                    await context.write(self._answer(asked, ReflectionResponse[version]()).SerializeToString())
                except grpc.aio.InternalError as error:
                    await refuse(context, error, self._service)

        return answer

    def _answer(self, asked: Any, answer: Any) -> Any:
        answer.valid_host = asked.host
        answer.original_request.CopyFrom(asked)
        kind = asked.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
        elif kind in ("file_by_filename", "file_containing_symbol"):
            files = _files(kind, getattr(asked, kind))
            if files:
                answer.file_descriptor_response.file_descriptor_proto.extend(files)
            else:
                answer.error_response.error_code = _NOT_FOUND
                answer.error_response.error_message = f"no {kind.rpartition('_')[2]} of that name"
        else:
            answer.error_response.error_code = _UNIMPLEMENTED
            answer.error_response.error_message = "there are no extensions here"
        return answer


def _files(kind: str, name: str) -> list[bytes]:
    """The requested description, and those on which it depends."""
    for pool in (messages.POOL, POOL):
        try:
            find = pool.FindFileByName if kind == "file_by_filename" else pool.FindFileContainingSymbol
            pending, found = [find(name)], {}
        except KeyError:
            continue
        while pending:
            file = pending.pop()
            if file.name not in found:
                found[file.name] = bytes(file.serialized_pb)
                pending += file.dependencies
        return list(found.values())
    return []


#: The services with a health check, which reflection lists.
SERVICES = (
    "jina.JinaRPC",
    "jina.JinaSingleDataRequestRPC",
    "jina.JinaSingleDocumentRequestRPC",
    "jina.JinaDataRequestRPC",
    "jina.JinaDiscoverEndpointsRPC",
    "jina.JinaGatewayDryRunRPC",
    "jina.JinaInfoRPC",
)
_IS_ERROR = (("is-error", "true"),)
_MAX_DIGITS = 10  # the requested number of open requests: a larger one gets the limit


class MethodTable(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """Every method by its full name."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)


class Services:
    """The methods of one server."""

    def __init__(self, service: Service, versions: Callable[[], Mapping[str, str]]) -> None:
        self._service, self._handler, self._versions = service, RequestHandler(service), versions
        self._open: set[Conversation] = set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Every method by its full name; requests and answers are bytes."""
        unary, streamed = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        unasked = unary
        if self._service.has_auth:
            unary, streamed = self._authenticated_unary, self._authenticated_streamed
            unasked = grpc.stream_unary_rpc_method_handler  # they read no message, and authenticate themselves
        return {
            "/jina.JinaRPC/Call": grpc.stream_stream_rpc_method_handler(self._call),
            "/jina.JinaSingleDataRequestRPC/process_single_data": unary(
                partial(self._answered, self._handler.answer, "jina.JinaSingleDataRequestRPC/process_single_data")
            ),
            "/jina.JinaSingleDocumentRequestRPC/stream_doc": streamed(self._stream_doc),
            "/jina.JinaDataRequestRPC/process_data": unary(
                partial(self._answered, self._handler.join, "jina.JinaDataRequestRPC/process_data")
            ),
            "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery": unasked(self._endpoint_discovery),
            "/jina.JinaGatewayDryRunRPC/dry_run": unasked(self._dry_run),
            "/jina.JinaInfoRPC/_status": unasked(self._status),
            discovery.ENDPOINTS: unasked(self._describe),
        }

    def drain(self) -> None:
        """Conversations stop reading, and end when their open requests have been answered."""
        for conversation in list(self._open):
            conversation.end(draining())

    def _authenticated_unary(self, answer: Callable[[bytes, Any], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
        async def answered(_: Any, context: Any) -> bytes:
            return await answer(await self._message(context), context)

        return grpc.stream_unary_rpc_method_handler(answered)

    def _authenticated_streamed(self, answer: Callable[[bytes, Any], Awaitable[None]]) -> grpc.RpcMethodHandler:
        async def answered(_: Any, context: Any) -> None:
            await answer(await self._message(context), context)

        return grpc.stream_stream_rpc_method_handler(answered)

    async def _message(self, context: Any) -> bytes:
        """Authenticate the caller of an RPC, and read its one message; the endpoint in it is checked later."""
        await self._authenticate("/post", context)
        try:
            raw = await context.read()
        except grpc.aio.InternalError as error:
            await refuse(context, error, self._service)
        if raw is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a message, got none")
        return bytes(raw)

    async def _call(self, requests: Any, context: Any) -> None:
        await self._authenticate("/post", context)
        limits = self._service.limits
        caller = caller_of(context, "jina.JinaRPC/Call")
        wanted = caller.headers.get("__prefetch__", "")
        few = int(wanted) if wanted.isdecimal() and len(wanted) < _MAX_DIGITS else 0
        conversation = Conversation(
            context,
            self._handler,
            caller,
            ahead=min(few or limits.socket_calls, limits.socket_calls),
            in_order=caller.headers.get("__results_in_order__", "").lower() == "true",
        )
        self._open.add(conversation)
        try:
            if self._service.is_draining:
                raise draining()
            await conversation.run()
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            await refuse(context, error, self._service)
        finally:
            self._open.discard(conversation)

    async def _answered(
        self, answer: Callable[[bytes, CallerInfo], Awaitable[EncodedAnswer]], method: str, raw: bytes, context: Any
    ) -> bytes:
        try:
            answered = await answer(raw, caller_of(context, method))
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            await refuse(context, error, self._service)
        if answered.ticket is not None:
            answered.ticket.close()
        if answered.failed:
            context.set_trailing_metadata(_IS_ERROR)
        return answered.raw

    async def _stream_doc(self, raw: bytes, context: Any) -> None:
        caller = caller_of(context, "jina.JinaSingleDocumentRequestRPC/stream_doc")
        try:
            async with aclosing(self._handler.stream(raw, caller)) as steps:
                async for answered in steps:
                    if answered.failed:
                        context.set_trailing_metadata(_IS_ERROR)
                    await context.write(answered.raw)
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            await refuse(context, error, self._service)

    async def _endpoint_discovery(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            return bytes(discovery.described(await self._service.loaded()).SerializeToString())

        return await self._describe_server(found, "/-/endpoints", context)

    async def _describe(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            return as_json(await described(self._service))

        return await self._describe_server(found, "/-/endpoints", context)

    async def _dry_run(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            return self._handler.readiness()

        return await self._describe_server(found, "/dry_run", context)

    async def _status(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            """Versions only, never the environment."""
            versions = dict(self._versions())
            return bytes(JinaInfoProto(jina={"jina": versions.get("jina-asgi", ""), **versions}).SerializeToString())

        return await self._describe_server(found, "/status", context)

    async def _describe_server(self, found: Callable[[], Awaitable[bytes]], path: str, context: Any) -> bytes:
        """Answer a request about the server itself; `path` is that of the same request over HTTP."""
        await self._authenticate(path, context)
        try:
            return await found()
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            await refuse(context, error, self._service)

    async def _authenticate(self, path: str, context: Any) -> None:
        """End the RPC if the `auth` hook refuses its caller."""
        if not self._service.has_auth:
            return
        try:
            await self._service.authenticate(path, headers_of(context))
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            await refuse(context, error, self._service)
