"""Jina's services as gRPC's handlers: which method is answered by what.

With `auth` no message is read before the metadata have told who sends it; grpcio reads the one of a unary method at once,
so that these are handlers of streams then, which are the same to a client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
import orjson

from jina_asgi.errors._shown import shown
from jina_asgi.protocols.admission import Known, identify, is_refusal
from jina_asgi.protocols.frames._heads import describe
from jina_asgi.protocols.grpc import discovery
from jina_asgi.protocols.grpc.bidi_call import Conversation, draining
from jina_asgi.protocols.grpc.rpc import deadline_of, headers_of, refuse
from jina_asgi.protocols.protobuf.messages import JinaInfoProto
from jina_asgi.protocols.protobuf.request_handler import Answered, Answering, Asker

#: The services whose health is told, and that reflection lists.
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
_MAX_DIGITS = 10  # of how many requests a client wants open at once: whoever wants more gets all that there are


class Services:
    """The methods of one server; `open` has the conversations that go on, for whoever stops them."""

    def __init__(self, answering: Answering, known: Known, versions: Callable[[], Mapping[str, str]]) -> None:
        self._answering, self._known, self._versions = answering, known, versions
        self._options, self._life = answering.options, answering.life
        self._open: set[Conversation] = set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Every method by its full name; requests and answers are bytes."""
        unary, streamed = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        unasked = unary
        if self._options.auth is not None:
            unary, streamed = self._known_unary, self._known_streamed
            unasked = grpc.stream_unary_rpc_method_handler  # they look at no message, and ask by themselves
        return {
            "/jina.JinaRPC/Call": grpc.stream_stream_rpc_method_handler(self._call),
            "/jina.JinaSingleDataRequestRPC/process_single_data": unary(
                partial(self._answered, self._answering.answer)
            ),
            "/jina.JinaSingleDocumentRequestRPC/stream_doc": streamed(self._stream_doc),
            "/jina.JinaDataRequestRPC/process_data": unary(partial(self._answered, self._answering.join)),
            "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery": unasked(self._endpoint_discovery),
            "/jina.JinaGatewayDryRunRPC/dry_run": unasked(self._dry_run),
            "/jina.JinaInfoRPC/_status": unasked(self._status),
            discovery.ENDPOINTS: unasked(self._describe),
        }

    def drain(self) -> None:
        """Conversations read no more, and end when what is open has been answered."""
        for conversation in list(self._open):
            conversation.end(draining())

    def _known_unary(self, answer: Callable[[bytes, Any], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
        async def answered(_: Any, context: Any) -> bytes:
            return await answer(await self._message(context), context)

        return grpc.stream_unary_rpc_method_handler(answered)

    def _known_streamed(self, answer: Callable[[bytes, Any], Awaitable[None]]) -> grpc.RpcMethodHandler:
        async def answered(_: Any, context: Any) -> None:
            await answer(await self._message(context), context)

        return grpc.stream_stream_rpc_method_handler(answered)

    async def _message(self, context: Any) -> bytes:
        """The one message of an RPC, once `auth` knows who sends it; it is asked about the endpoint that is named there, too."""
        await self._identified("/post", context)
        raw = await context.read()
        if raw is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a message, got none")
        return bytes(raw)

    async def _call(self, requests: Any, context: Any) -> None:
        await self._identified("/post", context)
        limits = self._options.limits
        headers = headers_of(context)
        wanted = headers.get("__prefetch__", "")
        few = int(wanted) if wanted.isdecimal() and len(wanted) < _MAX_DIGITS else 0
        conversation = Conversation(
            context,
            self._answering,
            Asker(headers, deadline_of(context)),
            ahead=min(few or limits.socket_calls, limits.socket_calls),
            in_order=headers.get("__results_in_order__", "").lower() == "true",
        )
        self._open.add(conversation)
        try:
            if self._life.leaving:
                raise draining()
            await conversation.run()
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            await refuse(context, error, expose=self._options.expose_errors)
        finally:
            self._open.discard(conversation)

    async def _answered(self, answer: Callable[[bytes, Asker], Awaitable[Answered]], raw: bytes, context: Any) -> bytes:
        try:
            answered = await answer(raw, Asker(headers_of(context), deadline_of(context)))
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            await refuse(context, error, expose=self._options.expose_errors)
        if answered.ticket is not None:
            answered.ticket.close()
        if answered.failed:
            context.set_trailing_metadata(_IS_ERROR)
        return answered.raw

    async def _stream_doc(self, raw: bytes, context: Any) -> None:
        asker = Asker(headers_of(context), deadline_of(context))
        try:
            async with aclosing(self._answering.stream(raw, asker)) as steps:
                async for answered in steps:
                    if answered.failed:
                        context.set_trailing_metadata(_IS_ERROR)
                    await context.write(answered.raw)
        except Exception as error:
            if not is_refusal(error):
                raise  # the connection is gone, and nobody is told anything
            await refuse(context, error, expose=self._options.expose_errors)

    async def _endpoint_discovery(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            return bytes(discovery.described(await self._known.loaded()).SerializeToString())

        return await self._told(found, "/-/endpoints", context)

    async def _describe(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            endpoints = await self._known.loaded()
            return orjson.dumps([describe(endpoint) for endpoint in endpoints.values()], default=shown)

        return await self._told(found, "/-/endpoints", context)

    async def _dry_run(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            return self._answering.readiness()

        return await self._told(found, "/dry_run", context)

    async def _status(self, raw: bytes, context: Any) -> bytes:
        async def found() -> bytes:
            """Versions only, never the environment."""
            versions = dict(self._versions())
            return bytes(JinaInfoProto(jina={"jina": versions.get("jina-asgi", ""), **versions}).SerializeToString())

        return await self._told(found, "/status", context)

    async def _told(self, found: Callable[[], Awaitable[bytes]], path: str, context: Any) -> bytes:
        """What is asked about the server itself, once `auth` knows who asks; `path` is where HTTP tells the same."""
        await self._identified(path, context)
        try:
            return await found()
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            await refuse(context, error, expose=self._options.expose_errors)

    async def _identified(self, path: str, context: Any) -> None:
        """Go on where `auth` knows who asks, or there is none."""
        if self._options.auth is None:
            return
        try:
            await identify(self._options.auth, headers_of(context), path)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            await refuse(context, error, expose=self._options.expose_errors)
