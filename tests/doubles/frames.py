"""Small real ends of a frame connection: a Runner made of functions, and an end that sends what it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jina_asgi.documents.codec import codec
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import MAGIC, VERSIONS, Hello, describe, write
from jina_asgi.protocols.frames._layout import Frame, FrameReader, write_frame
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.pipe import pipe
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.types import Call, Context, Docs, Endpoint, Field, Result, Schema, Ticket

TEXT = Schema("Text", {"Text": (Field("text", "str"),)}, {"title": "Text", "type": "object"})
CALLED = Endpoint(name="/call", kind="batch", input=TEXT, output=TEXT, description="Answers once.")
STREAMED = Endpoint(name="/stream", kind="stream", input=TEXT, output=TEXT, idempotent=True, batching={"timeout": 5})
ENDPOINTS = {endpoint.name: endpoint for endpoint in (CALLED, STREAMED)}


def texts(*values: str) -> Docs:
    """Encoded docs of one text each."""
    return codec(TEXT).encoded(codec(TEXT).encode([{"text": value} for value in values]))


def values(docs: Docs) -> list[str]:
    return [doc["text"] for doc in docs.typed]


def a_call(*of: str, endpoint: str = "/call", **context: Any) -> Call:
    return Call(endpoint, texts(*of), context=Context(**context))


async def echo(call: Call) -> Result:
    return Result(call.docs)


async def one_each(call: Call) -> AsyncGenerator[Docs, None]:
    for value in values(call.docs):
        yield texts(value)


class Double(Ticket):
    """A Runner whose call and stream are the functions given; it notes what happened to it."""

    def __init__(
        self,
        call: Callable[[Call], Awaitable[Result]] = echo,
        stream: Callable[[Call], AsyncGenerator[Docs, None]] = one_each,
        *,
        endpoints: Mapping[str, Endpoint] = ENDPOINTS,
        refuse: Exception | None = None,
    ) -> None:
        self.endpoints = endpoints
        self.admitted: list[tuple[str, int]] = []
        self.places = 0
        self.lives = 0
        self._call, self._stream, self._refuse = call, stream, refuse

    def admit(self, endpoint: str, *, size: int = 0) -> Double:
        if self._refuse is not None:
            raise self._refuse
        self.admitted.append((endpoint, size))
        self.places += 1
        return self

    def close(self) -> None:
        self.places -= 1

    async def call(self, call: Call, /) -> Result:
        return await self._call(call)

    def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        return self._stream(call)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.lives += 1
        try:
            yield
        finally:
            self.lives -= 1


class RawEnd(asyncio.Protocol):
    """An end that sends what it is told and keeps the frames that come."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self._reader = FrameReader()
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._frames.put_nowait(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def send(self, kind: int, number: int, head: bytes = b"", docs: Any = ()) -> None:
        out: list[Any] = []
        write_frame(out, kind, number, head, docs)
        self.transport.write(b"".join(out))

    async def next(self, kind: int) -> Frame:
        """The next frame, which must be of that kind."""
        async with asyncio.timeout(5):
            frame = await self._frames.get()
        assert kind == frame.kind
        return frame

    @property
    def waiting(self) -> int:
        """Frames that came and were not asked for."""
        return self._frames.qsize()


def hello(*, endpoints: Mapping[str, Endpoint] = ENDPOINTS, **changes: Any) -> bytes:
    """The head of a hello that either side accepts."""
    facts = {"magic": MAGIC, "low": VERSIONS[0], "high": VERSIONS[1], "version": VERSIONS[1], **changes}
    return write(Hello(**facts, endpoints=[describe(endpoint) for endpoint in endpoints.values()]))


@asynccontextmanager
async def client_of_raw(**options: Any) -> AsyncIterator[tuple[FrameClient, RawEnd]]:
    """A client whose other end is a `RawEnd` that has said hello."""
    far = RawEnd()

    async def connect(factory: Callable[[], asyncio.Protocol]) -> Any:
        near = factory()
        transport, _ = pipe(near, far)
        far.send(_layout.HELLO, 0, hello())
        return transport, near

    client = FrameClient(connect, grace=0.01, **options)
    async with client.lifespan():
        await far.next(_layout.HELLO)
        yield client, far


@asynccontextmanager
async def raw_to_server(runner: Double, *, greet: bool = True) -> AsyncIterator[tuple[RawEnd, FrameServer]]:
    """A `RawEnd` that has exchanged hellos with a server of `runner`."""
    near, server = RawEnd(), FrameServer(runner)
    pipe(near, server)
    if greet:
        near.send(_layout.HELLO, 0, hello())
        await near.next(_layout.HELLO)
    yield near, server
    server.abort()
    await server.wait_closed()


@asynccontextmanager
async def served(
    runner: Double, over: str = "pipe", *, admits: bool = True, **options: Any
) -> AsyncIterator[tuple[FrameClient, FrameServer]]:
    """A client and a server of `runner`, connected in memory or by a socket."""
    server = FrameServer(runner, admits=admits)
    loop = asyncio.get_running_loop()

    async def connect(factory: Callable[[], asyncio.Protocol]) -> Any:
        if over == "pipe":
            near = factory()
            return pipe(near, server)[0], near
        left, right = socket.socketpair()
        await loop.create_connection(lambda: server, sock=right)
        return await loop.create_connection(factory, sock=left)

    client = FrameClient(connect, **options)
    async with client.lifespan():
        yield client, server
    async with asyncio.timeout(5):
        await server.wait_closed()
