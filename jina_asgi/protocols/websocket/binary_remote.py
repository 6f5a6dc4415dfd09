"""The transport over the binary WebSocket of a real Jina's Flow: a DataRequestProto in a message, answers in any order.

It has no streams, and its server does not list its endpoints: any may be called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
from google.protobuf.message import DecodeError

from jina_asgi.concurrency.offload import parse_if
from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.protocols.remote.protobuf_answers import ProtobufAnswer, request_of
from jina_asgi.protocols.remote.server import ServerClient
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer, ServerDescription, until
from jina_asgi.protocols.size_guard import PROTOBUF, is_heavy
from jina_asgi.protocols.websocket.client import Dial, Inbox, Link, Links
from jina_asgi.types import EMPTY, untyped_endpoint


class BinaryLink(Link):
    """A connection to Jina's binary WebSocket. A call's id is that of its request."""

    async def ask(self, identity: str, request: bytes) -> ProtobufAnswer:
        """Sends the DataRequest of an id and returns its answer.

        Raises:
            ReplicaDied, TooLarge, ProtocolError: the connection closed. InvalidRequest: an open request has its id. The
            error in the answer's status.
        """
        if identity in self._open:
            raise InvalidRequest(f"the request id {identity!r} belongs to an open request")
        inbox = self._open[identity] = Inbox()
        try:
            await self._send(request)
            answer, heavy = await inbox.get()
            return ProtobufAnswer.of(answer, heavy=heavy)
        finally:
            self._open.pop(identity, None)

    def _parse(self, message: str | bytes) -> tuple[Any, Any, bool]:
        try:
            answer = DataRequest.FromString(message)
            heavy = not isinstance(message, str) and is_heavy(PROTOBUF, message)
        except (DecodeError, TypeError) as error:  # a text is no bytes
            raise ValueError(f"the message is not a DataRequestProto: {error}") from error
        return answer.header.request_id, (answer, heavy), True


class BinaryRemote(ServerClient):
    """A server at `url`, whose WebSocket is at its root; its readiness comes by HTTP.

    Args:
        http: for the readiness; its headers are sent with each handshake too.
        url: of HTTP: "http://models:8000".
        dial: opens a connection, and offers the subprotocol "bytes".
    """

    def __init__(self, http: httpx.AsyncClient, url: str, dial: Dial) -> None:
        super().__init__(http, url)
        address = f"ws{url.rstrip('/').removeprefix('http')}/"
        self._links = Links(address, http.headers, dial, lambda wire: BinaryLink(wire, self.name))

    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        """Checks that there is such a WebSocket; describes one endpoint that stands for all of them."""
        await self._links.release(await self._links.take(headers))
        return ServerDescription({"/default": untyped_endpoint("/default")}, ours=False, streams=False)

    async def close(self) -> None:
        await self._links.close()

    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        def write() -> tuple[str, bytes]:
            message = request_of(request)
            return message.header.request_id, message.SerializeToString()

        async with until(request):
            identity, raw = await parse_if(request.is_heavy(PROTOBUF), None, write)
            link = await self._links.take(request.headers)
            try:
                return await link.ask(identity, raw)
            finally:
                await self._links.release(link)

    def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        """Opens no stream.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(f"{self.name} is called over Jina's WebSocket, which has no streams; use gRPC or HTTP")
