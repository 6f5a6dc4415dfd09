"""The transport over the binary WebSocket of a real Jina's Flow: a DataRequestProto in a message, answers in any order.

It has no streams, and its server does not list its endpoints: any may be called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
from google.protobuf.message import DecodeError

from jina_asgi.errors import InvalidRequest
from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.protocols.remote.protobuf_answers import ProtobufAnswer, request_of
from jina_asgi.protocols.remote.server import ServerClient
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer, ServerDescription, until
from jina_asgi.protocols.websocket.client import Dial, Inbox, Link, Links
from jina_asgi.types import EMPTY, untyped_endpoint


class BinaryLink(Link):
    """A connection to Jina's binary WebSocket. A call's id is that of its request."""

    async def ask(self, request: Any) -> Any:
        """Sends a DataRequest and returns its answer.

        Raises:
            ReplicaDied, TooLarge, ProtocolError: the connection closed. InvalidRequest: an open request has its id.
        """
        identity = request.header.request_id
        if identity in self._open:
            raise InvalidRequest(f"the request id {identity!r} belongs to an open request")
        inbox = self._open[identity] = Inbox()
        try:
            await self._send(request.SerializeToString())
            return await inbox.get()
        finally:
            self._open.pop(identity, None)

    def _parse(self, message: str | bytes) -> tuple[Any, Any, bool]:
        try:
            answer = DataRequest.FromString(message)
        except (DecodeError, TypeError) as error:  # a text is no bytes
            raise ValueError(f"the message is not a DataRequestProto: {error}") from error
        return answer.header.request_id, answer, True


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
        async with until(request):
            link = await self._links.take(request.headers)
            try:
                answer = await link.ask(request_of(request))
            finally:
                await self._links.release(link)
        return ProtobufAnswer.of(answer)

    def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        """Opens no stream.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(f"{self.name} is called over Jina's WebSocket, which has no streams; use gRPC or HTTP")
