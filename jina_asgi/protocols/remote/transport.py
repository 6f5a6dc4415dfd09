"""What the transports to a server have in common: a request, an answer, the server's description, and deadlines.

A transport sends requests over one protocol: HTTP (`server.py`), gRPC, or a WebSocket. Clients and Runners know `Transport`
only, and nothing here opens a connection.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import msgspec
import orjson

from jina_asgi.concurrency.offload import parse_if
from jina_asgi.documents.codec import Codec
from jina_asgi.documents.msgpack import pack, unpack
from jina_asgi.errors import DeadlineExceeded, ExecutorError, InvalidDocs, NotReady, ReplicaDied
from jina_asgi.protocols.frames._heads import endpoint_of
from jina_asgi.protocols.http.bodies import JSON, MSGPACK
from jina_asgi.protocols.http.json_pieces import MAX_LEVELS, loads
from jina_asgi.protocols.size_guard import HUGE, are_large
from jina_asgi.types import EMPTY, Docs, Endpoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """A server's endpoints, and how to call them.

    `ours` says that it is a server of this library, which takes msgpack and describes its endpoints exactly. `by_get`
    are the streams that take a single document by GET, and no parameters. `streams` is False if no endpoint can stream.
    """

    endpoints: Mapping[str, Endpoint]
    ours: bool
    by_get: frozenset[str] = frozenset()
    streams: bool = True

    @classmethod
    def of_ours(cls, described: Iterable[Mapping[str, Any]]) -> Self:
        """Builds the description of a server of this library from its endpoints, each as `describe` writes it.

        Raises:
            ProtocolError: one describes no endpoint.
        """
        return cls({endpoint.name: endpoint for endpoint in map(endpoint_of, described)}, ours=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingRequest:
    """One request. `header` is Jina's, in the body; `headers` are HTTP's. `deadline` is on `time.monotonic`'s clock.

    `columns` requests the answer's docs field by field, `with_json` their JSON values besides; only msgpack has both.
    `files` makes the request a form: for each file the field's name, and the file's name, bytes and media type.
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

    @property
    def time_left(self) -> float | None:
        """The seconds until the deadline, if there is one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def is_heavy(self, media: str) -> bool:
        """Whether writing the docs in a media type takes so long that it should be done in a thread."""
        return are_large(self.docs, media)

    def form(self) -> dict[str, bytes]:
        """The parts of a form that are not files: the content of a JSON body.

        Raises:
            InvalidDocs: a value cannot be written as JSON.
        """
        held = orjson.loads(self.body(JSON))
        return {key: orjson.dumps(held[key]) for key in ("data", "parameters", "header") if held.get(key)}

    def body(self, media: str) -> bytes:
        """Encodes the body in a media type.

        Raises:
            InvalidDocs: a value cannot be written in it.
        """
        body: dict[str, Any] = {}
        if self.header:
            body = {**self.header, "header": dict(self.header)}  # Jina's client repeats the header at the top level
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


class _Json(msgspec.Struct):
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None
    header: dict[str, Any] | None = None
    routes: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """One answer, its docs not decoded yet: msgpack buffers, or JSON values; with `columns`, all values of each field.

    `heavy`: decoding the docs takes so long that it should be done in a thread.
    """

    data: list[Any]
    media: str
    parameters: Mapping[str, Any]
    header: Mapping[str, Any]
    routes: tuple[Any, ...] = ()
    columns: Mapping[str, Any] | None = None
    heavy: bool = False

    async def decoded(self, codec: Codec) -> Docs:
        """As `docs`, which runs in a thread if the answer is heavy."""
        return await parse_if(self.heavy, None, self.docs, codec)

    @classmethod
    def of_json(cls, raw: bytes, *, heavy: bool = False) -> ServerAnswer:
        """Parses the body of an answer in JSON.

        Raises:
            ValueError, InvalidRequest: it is not JSON, or not an answer.
        """
        body = msgspec.convert(loads(raw, MAX_LEVELS) if len(raw) >= HUGE else orjson.loads(raw), _Json)
        rest = body.parameters or {}, body.header or {}
        return ServerAnswer(body.data or [], JSON, *rest, tuple(body.routes or ()), heavy=heavy)

    def docs(self, codec: Codec) -> Docs:
        """Decodes the docs by a codec.

        Raises:
            InvalidDocs: they are JSON and do not fit the codec's schema. With msgpack, `Docs.typed` raises it.
        """
        return codec.encoded(self.data) if self.media == MSGPACK else codec.docs(codec.read(self.data))

    def values(self) -> list[Any]:
        """The docs as dicts, without validation.

        Raises:
            InvalidDocs: they cannot be decoded.
        """
        values = [unpack(buffer) for buffer in self.data] if self.media == MSGPACK else self.data
        if not all(isinstance(value, dict) for value in values):
            raise InvalidDocs("expected objects as docs")
        return values


class Transport(ABC):
    """Sends calls to one server, until it is closed, which leaving its block does too.

    Which form calls take there is known once `served` has been called.

    Attributes:
        name: the server, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def unreachable(self, error: object) -> NotReady:
        """The error of a call that was not sent, as the server cannot be reached."""
        return NotReady(f"cannot connect to {self.name}: {error}")

    def cut_off(self, why: str) -> ReplicaDied:
        """The error of a call whose connection broke."""
        return ReplicaDied(f"the connection to {self.name} broke ({why}); the call may have taken effect")

    @abstractmethod
    async def served(self, headers: Mapping[str, str] = EMPTY) -> ServerDescription:
        """Fetches the server's description.

        Raises:
            NotReady: the server cannot be reached, or is loading. ProtocolError: it is not a server of endpoints.
        """

    async def ready(self, headers: Mapping[str, str] = EMPTY) -> bool:
        """Whether the server reports that it is ready: by default, whether it describes endpoints."""
        return bool((await self.served(headers)).endpoints)

    @abstractmethod
    async def ask(self, request: OutgoingRequest) -> ServerAnswer:
        """Sends one call and returns its answer.

        Raises:
            The error that the server reports; NotReady if it cannot be reached, ReplicaDied if the connection broke,
            DeadlineExceeded, ProtocolError.
        """

    @abstractmethod
    def events(self, request: OutgoingRequest) -> AsyncGenerator[ServerAnswer, None]:
        """Opens one stream, an answer for each document; closing it early stops the call. Raises as `ask`."""

    async def close(self) -> None:  # noqa: B027  # a transport may keep none
        """Closes the connections that this object opened, if it keeps any."""


async def steps_until(request: OutgoingRequest, steps: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Passes the steps of a stream on, each until the request's deadline, and closes them. Raises as `until`."""
    async with aclosing(steps):
        while True:
            async with until(request):
                step = await anext(steps, None)
            if step is None:
                return
            yield step


@asynccontextmanager
async def until(request: OutgoingRequest) -> AsyncIterator[None]:
    """Raises DeadlineExceeded from the block when the request's deadline passes."""
    left = None if request.deadline is None else request.deadline - time.monotonic()
    if left is not None and left <= 0:
        raise _deadline_error(request)
    limit = asyncio.timeout(left)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise _deadline_error(request) from None


def _deadline_error(request: OutgoingRequest) -> DeadlineExceeded:
    """The error for a passed deadline; call it where it is raised, else its traceback makes a reference cycle."""
    return DeadlineExceeded(f"the deadline of this call to {request.endpoint} has passed")
