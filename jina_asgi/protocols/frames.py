"""What both halves of the framed protocol share: a connection that reads and writes frames, and calls as frames.

All frames of a turn of the loop leave in one write. Docs pass as the buffers they are: nothing here decodes them.
The halves are `frames_client` and `frames_server`; the rules of the protocol are `_wire_state`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from jina_asgi import _wire
from jina_asgi._raised import described
from jina_asgi._shown import said
from jina_asgi._wire import FRAME_LIMIT, Buffer, Frame, FrameReader, Reference, write_frame
from jina_asgi._wire_heads import ArenaHead, CallHead, EndedHead, ReleaseHead, ResultHead, read, write, write_error
from jina_asgi._wire_state import Credit
from jina_asgi.codecs import codec, pack, unpack
from jina_asgi.errors import (
    ExecutorError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    ProtocolError,
    TooLarge,
    UnknownEndpoint,
)
from jina_asgi.types import EMPTY, Call, Context, Docs, Endpoint, Parts, Result, Step, resolve

logger = logging.getLogger(__name__)

#: What may wait to be written before calls and streams wait too, in bytes.
WRITE_HIGH = 256 << 10


class Sharing(Protocol):
    """Memory that both ends of a connection have, for docs too large to be sent: `processes.arenas` has it."""

    def start(self, release: Callable[[list[tuple[int, int]]], None], end: Callable[[list[int]], None], /) -> None: ...
    def offer(self) -> ArenaHead | None: ...
    def accept(self, arena: ArenaHead, /) -> bool: ...
    def readable(self) -> None: ...
    def out(self, docs: Sequence[Buffer | Parts], /) -> Sequence[Buffer | Reference]: ...
    def unsent(self, docs: Sequence[Buffer | Reference], /) -> None: ...
    def find(self, reference: Reference, /) -> memoryview: ...
    def returned(self, docs: Sequence[tuple[int, int]], /) -> None: ...
    def ended(self, arenas: Sequence[int], /) -> None: ...
    def detach(self) -> None: ...
    def lost(self) -> None: ...


class Connection(asyncio.Protocol, ABC):
    """One end of a connection: bytes to frames and back, flow control of the writing, the end told once.

    A half overrides `frame_received` and `lost`. Make one inside a running loop.
    """

    #: How long the other side may take to read what is left when this one closes, in seconds.
    close_timeout = 5.0

    def __init__(self, limit: int = FRAME_LIMIT, sharing: Sharing | None = None) -> None:
        self.reader = FrameReader(limit)
        self.sharing = sharing
        if sharing is not None:
            self.reader.find = sharing.find
            sharing.start(self._release, self._tell_ended)
        #: The largest frame that the other side takes.
        self.send_limit = limit
        self.is_lost = False
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._cause: ProtocolError | None = None
        self._is_ending = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self._out: list[Buffer] = []
        self._out_size = 0
        self._writable = asyncio.Event()
        self._writable.set()

    @abstractmethod
    def frame_received(self, frame: Frame) -> None:
        """Take one frame.

        Raises:
            ProtocolError: it breaks the rules; the connection ends.
        """

    @abstractmethod
    def lost(self, cause: BaseException | None) -> None:
        """The connection is gone, because of `cause` where it broke; called once."""

    def send(self, kind: int, number: int, head: bytes = b"", docs: Sequence[Buffer | Parts] = ()) -> None:
        """Write a frame in this turn of the loop; nothing on a connection that is gone.

        Raises:
            TooLarge: the frame is over the other side's limit.
        """
        if self.is_lost:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        outgoing: Sequence[Buffer | Reference] = ()
        if docs:
            outgoing = _sent(docs) if self.sharing is None else self.sharing.out(docs)
        try:
            self._out_size += write_frame(self._out, kind, number, head, outgoing, self.send_limit)
        except TooLarge:
            if self.sharing is not None:
                self.sharing.unsent(outgoing)
            raise
        if self._out_size > WRITE_HIGH:
            self._flush()

    @property
    def is_writable(self) -> bool:
        """Whether the other side reads fast enough to be sent more."""
        return self._writable.is_set()

    async def writable(self) -> None:
        """Wait until more may be sent, or the connection is gone."""
        while not self._writable.is_set():
            await self._writable.wait()

    def break_off(self, cause: ProtocolError) -> None:
        """End the connection, because the other side broke its rules."""
        if self._cause is None and not self.is_lost:
            logger.warning("a frame connection ends: %r", cause.message)
            self._cause = cause
            self.refuse(cause)

    def refuse(self, error: JinaASGIError) -> None:
        """Tell the other side why the connection ends, and end it."""
        self._is_ending = True
        self.send(_wire.ERROR, 0, write_error(error))
        self._flush()
        assert self._transport is not None
        self._transport.close()
        self._abort_timer = self._loop.call_later(self.close_timeout, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None and not self.is_lost:
            self._transport.abort()

    async def close(self) -> None:
        """Send what is left and end the connection; at once if the other side takes too long to read it."""
        if self._transport is None or self.is_lost:
            return
        self._flush()
        self._transport.close()
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.closed.wait()
        except TimeoutError:
            self._transport.abort()
            await self.closed.wait()
        except BaseException:
            self._transport.abort()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self.reader.feed(data):
                if self._is_ending:
                    return
                self.frame_received(frame)
        except ProtocolError as error:
            self.break_off(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._out.clear()
        self._writable.set()
        if self.sharing is not None:
            self.sharing.lost()
        self.lost(self._cause or exc)
        self.closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def memory_received(self, frame: Frame) -> None:
        """Take a frame about shared memory.

        Raises:
            ProtocolError: it is not about what this side has shared.
        """
        if self.sharing is None:
            raise ProtocolError("no memory is shared on this connection")
        if frame.kind == _wire.SHARES:
            self.sharing.readable()
        elif frame.kind == _wire.ENDED:
            self.sharing.ended(read(frame, EndedHead).arenas)
        else:
            self.sharing.returned(read(frame, ReleaseHead).docs)

    def take(self, arena: ArenaHead | None) -> None:
        """Write to memory that the other side offers from now on, if there is any, and read what it says is there."""
        if arena is not None and self.sharing is not None and self.sharing.accept(arena):
            self.send(_wire.SHARES, 0)

    def _release(self, docs: list[tuple[int, int]]) -> None:
        self.send(_wire.RELEASE, 0, write(ReleaseHead(docs)))

    def _tell_ended(self, arenas: list[int]) -> None:
        self.send(_wire.ENDED, 0, write(EndedHead(arenas)))

    def _flush(self) -> None:
        out, self._out, self._out_size = self._out, [], 0
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))


def _sent(docs: Sequence[Buffer | Parts]) -> Sequence[Buffer]:
    return [doc.joined() if isinstance(doc, Parts) else doc for doc in docs]


def write_call(call: Call, *, items: int = 0, size: int = 0) -> tuple[bytes, Sequence[Buffer | Parts]]:
    """A call as the head and docs of a frame; `items` and `size` are a stream's first credit.

    Raises:
        InvalidRequest: parameters, identity or context hold what cannot cross to another process.
    """
    context = call.context
    docs: Sequence[Buffer | Parts] = call.docs.parts
    sources: list[tuple[str, int]] = []
    if call.sources:
        docs = list(docs)
        for node, its_docs in call.sources:
            docs += its_docs.parts
            sources.append((node, len(its_docs)))
    head = CallHead(
        call.endpoint,
        context.request_id,
        _pack("the parameters", dict(call.parameters)) if call.parameters else b"",
        dict(context.headers) if context.headers else {},
        None if context.deadline is None else context.deadline - time.monotonic(),
        b"" if context.identity is None else _pack("the identity", context.identity),
        context.tenant,
        context.priority,
        sources,
        items,
        size,
        None if context.costs is None else [*context.costs],
        None if context.inputs is None else [*context.inputs],
        call.giver,
    )
    return write(head), docs


def read_call(frame: Frame, endpoints: Mapping[str, Endpoint]) -> tuple[Call, Credit]:
    """The call in a frame, its docs still encoded, and a stream's first credit.

    Raises:
        UnknownEndpoint: none of `endpoints` answers it.
        InvalidRequest: it is not what `write_call` writes. The connection is sound: only this call fails.
    """
    try:
        head = read(frame, CallHead)
    except ProtocolError as error:
        raise InvalidRequest(error.message) from error
    endpoint = resolve(endpoints, head.endpoint)
    if endpoint is None:
        raise UnknownEndpoint(f"there is no endpoint {head.endpoint!r} and no '/default'")
    of_input = codec(endpoint.input)
    docs, sources = frame.docs, []
    if head.sources:
        position = own = len(docs) - sum(count for _, count in head.sources)
        if own < 0:
            raise InvalidRequest(f"a call's sources ask for more docs than the {len(docs)} that came")
        for node, count in head.sources:
            sources.append((node, of_input.encoded(docs[position : position + count])))
            position += count
        docs = docs[:own]
    parameters: Any = unpack(head.parameters) if head.parameters else EMPTY
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"expected a mapping of parameters, not {type(parameters).__name__}")
    context = Context(
        head.request_id,
        headers=head.headers or EMPTY,
        deadline=None if head.remaining is None else time.monotonic() + head.remaining,
        identity=unpack(head.identity) if head.identity else None,
        tenant=head.tenant,
        priority=head.priority,
    )
    if head.costs is not None and len(head.costs) == len(docs):
        context.costs = head.costs
    if head.inputs is not None and len(head.inputs) == len(docs):
        context.inputs = head.inputs
    call = Call(head.endpoint, of_input.encoded(docs), parameters, context, tuple(sources), "", head.giver)
    return call, Credit(head.items, head.size)


def write_result(result: Result) -> tuple[bytes, Sequence[Buffer | Parts]]:
    """A result as the head and docs of a frame.

    Raises:
        ExecutorError: it holds what cannot cross to another process.
    """
    docs = encoded_answer(result.docs)
    if not (result.results or result.trail):
        return b"", docs
    try:
        results = _pack("the results", dict(result.results)) if result.results else b""
        head = write(ResultHead(results, [(step.name, step.start, step.end, step.error) for step in result.trail]))
    except InvalidRequest as error:
        raise ExecutorError(error.message) from error
    return head, docs


def encoded_answer(docs: Docs) -> Sequence[Buffer | Parts]:
    """The buffers of docs that an endpoint gave.

    Raises:
        ExecutorError: they hold what cannot be encoded; the caller is not at fault.
    """
    try:
        return docs.codec.encode_answers(docs.typed) if docs.is_typed else docs.parts
    except InvalidDocs as error:
        raise ExecutorError(error.message) from error
    except BaseException as error:
        raise ExecutorError(f"documents that cannot be encoded: {described(error)}") from error


def read_result(frame: Frame, endpoint: Endpoint) -> Result:
    """The result in a frame, its docs still encoded.

    Raises:
        ProtocolError: it is not what `write_result` writes.
        ExecutorError: its results nest deeper than can be read here.
    """
    docs = docs_of(frame, endpoint)
    if not frame.head:
        return Result(docs)
    head = read(frame, ResultHead)
    try:
        results: Any = unpack(head.results) if head.results else EMPTY
    except InvalidDocs as error:
        raise ExecutorError(f"the results cannot be read: {error}") from error
    return Result(docs, results, tuple(Step(*step) for step in head.trail))


def docs_of(frame: Frame, endpoint: Endpoint) -> Docs:
    """The docs of an answer, still encoded."""
    return codec(endpoint.output).encoded(frame.docs)


def _pack(what: str, value: Any) -> bytes:
    try:
        return pack(value)
    except JinaASGIError:
        raise
    except BaseException as error:
        raise InvalidRequest(f"{what} cannot cross to another process: expected plain data: {said(error)}") from error
