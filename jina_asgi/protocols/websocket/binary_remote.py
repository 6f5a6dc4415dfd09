"""A real Jina's Flow, asked over its binary WebSocket: a DataRequestProto a message, answers in any order.

The other half of `binary`. It knows no streams, and does not tell its endpoints: any may be asked. An answer
that nobody waits for any more is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
from google.protobuf.message import DecodeError

from jina_asgi.concurrency.tasks import cancel_and_wait, log_failure, start_task
from jina_asgi.errors import InvalidRequest, JinaASGIError
from jina_asgi.protocols.protobuf.messages import DataRequest
from jina_asgi.protocols.remote.protobuf_answers import ProtobufAnswer, request_of
from jina_asgi.protocols.remote.server import OutgoingRequest, ServerAnswer, ServerClient, ServerDescription, until
from jina_asgi.protocols.websocket.client import Dial, Wire, WireClosed, died
from jina_asgi.protocols.websocket.client_pool import Links
from jina_asgi.types import EMPTY, untyped_endpoint


class BinaryLink:
    """One connection and the requests on it, which know their answers by their ids."""

    streams = False

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire, self._name = wire, name
        self._open: dict[str, asyncio.Future[Any]] = {}  # of the answer, or of the error that ended the connection
        self._ended: JinaASGIError | None = None
        self._reader = start_task(self._read(), self._read_over)

    @property
    def alive(self) -> bool:
        return self._ended is None

    def __len__(self) -> int:
        """How many requests are open."""
        return len(self._open)

    async def ask(self, request: Any) -> Any:
        """The answer to a DataRequest.

        Raises:
            ReplicaDied, TooLarge, ProtocolError: the connection ended. InvalidRequest: its id is that of an open one.
        """
        if self._ended is not None:
            raise self._ended
        identity = request.header.request_id
        if identity in self._open:
            raise InvalidRequest(f"the request id {identity!r} is that of a request which has not been answered")
        answer = self._open[identity] = asyncio.get_running_loop().create_future()
        try:
            await self._wire.send(request.SerializeToString())
            told = await answer
        except WireClosed as error:
            self._end(error)
            raise died(self._name, error) from error
        finally:
            self._open.pop(identity, None)
        try:
            if isinstance(told, JinaASGIError):
                raise told
            return told
        finally:
            del told, answer  # the error's traceback holds this frame

    async def close(self) -> None:
        """Close the connection; requests that are open end with ReplicaDied."""
        self._end(WireClosed(1000, "closed here"))
        try:
            await cancel_and_wait([self._reader])
        finally:
            await self._wire.close()

    async def _read(self) -> None:
        try:
            while True:
                answer = DataRequest.FromString(await self._wire.receive())
                self._tell(answer.header.request_id, answer)
        except WireClosed as error:
            self._end(error)
        except (DecodeError, TypeError) as error:  # a text is no bytes
            self._end(WireClosed(1007, f"what came is no DataRequestProto: {error}"))

    def _read_over(self, task: asyncio.Task[None]) -> None:
        """Nothing more is read, whatever ended that: those who wait are told."""
        log_failure("reading a WebSocket")(task)
        self._end(WireClosed(1006, "it is read no more"))

    def _tell(self, identity: str, told: Any) -> None:
        waiting = self._open.pop(identity, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(told)

    def _end(self, error: WireClosed) -> None:
        if self._ended is None:
            self._ended = died(self._name, error)
            for identity in list(self._open):
                self._tell(identity, self._ended)


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
        """One endpoint that stands for all of them: the server finds the one that is asked."""
        await self._links.release(await self._links.take(headers))  # whether there is such a WebSocket
        return ServerDescription(
            {"/default": untyped_endpoint("/default")},
            ours=False,
            streams=False,
        )

    async def close(self) -> None:
        await self._links.close()

    async def ask(self, asked: OutgoingRequest, *, media: str = "", path: str | None = None) -> ServerAnswer:
        """One call; in protobuf whatever `media` says. Raises as `ServerClient.ask`."""
        async with until(asked):
            link = await self._links.take(asked.headers)
            try:
                answer = await link.ask(request_of(asked))
            finally:
                await self._links.release(link)
        return ProtobufAnswer.of(answer)

    def events(
        self, asked: OutgoingRequest, *, media: str = "", get: bool = False
    ) -> AsyncGenerator[ServerAnswer, None]:
        """No stream.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(f"{self.name} is asked over Jina's WebSocket, which has no streams; gRPC and HTTP have")
