"""The pipe pair: bytes really cross, writers are made to wait, lifetimes are one inside the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from jina_asgi.errors import NotReady
from jina_asgi.protocols.frames.pipe import PIECE, pipe, pipe_pair
from jina_asgi.types import Call, Result
from tests.doubles.frames import ENDPOINTS, Double, a_call, texts, values


class End(asyncio.Protocol):
    """Keeps what comes, and how the writing was paused."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.pauses: list[str] = []
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def pause_writing(self) -> None:
        self.pauses.append("pause")

    def resume_writing(self) -> None:
        self.pauses.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_bytes_cross_in_pieces_and_pause_the_writer() -> None:
    left, right = End(), End()
    pipe(left, right)
    left.transport.set_write_buffer_limits(high=100_000)

    left.transport.write(b"")
    left.transport.write(bytearray(b"a" * 90_000))
    assert left.pauses == []
    left.transport.write(b"b" * 90_000)
    assert left.transport.get_write_buffer_size() == 180_000
    assert left.pauses == ["pause"]
    assert right.pieces == []
    left.transport.close()
    left.transport.close()
    left.transport.write(b"too late")
    await right.lost.wait()

    assert b"".join(right.pieces) == b"a" * 90_000 + b"b" * 90_000
    assert max(map(len, right.pieces)) == PIECE
    assert left.pauses == ["pause", "resume"]
    assert left.lost.is_set()
    assert right.transport.is_closing()


async def test_an_end_that_does_not_read_is_sent_nothing() -> None:
    left, right = End(), End()
    pipe(left, right)
    left.transport.set_write_buffer_limits()

    right.transport.pause_reading()
    left.transport.write(b"x")
    for _ in range(10):
        await asyncio.sleep(0)
    assert right.pieces == []
    right.transport.resume_reading()
    await asyncio.sleep(0)

    assert right.pieces == [b"x"]


async def test_aborting_drops_what_was_not_delivered() -> None:
    left, right = End(), End()
    pipe(left, right)

    left.transport.write(b"x")
    left.transport.abort()
    right.transport.abort()
    await right.lost.wait()
    await left.lost.wait()

    assert right.pieces == []


async def test_its_lifespan_is_the_runners_and_may_be_entered_again() -> None:
    runner = Double()
    pair = pipe_pair(runner)
    for _ in range(2):
        async with pair.lifespan():
            assert runner.lives == 1
            assert values((await pair.call(a_call("x"))).docs) == ["x"]
        assert runner.lives == 0
        with pytest.raises(NotReady):
            await pair.call(a_call("x"))


async def test_an_error_inside_its_lifespan_ends_both_and_surfaces_as_itself() -> None:
    runner = Double()
    pair = pipe_pair(runner)

    with pytest.raises(ZeroDivisionError):
        async with pair.lifespan():
            raise ZeroDivisionError

    assert runner.lives == 0


async def test_its_endpoints_are_known_before_its_lifespan() -> None:
    pair = pipe_pair(Double())

    assert pair.endpoints == ENDPOINTS
    assert pair.endpoints["/call"] is not ENDPOINTS["/call"]


async def test_a_pair_around_a_pair_is_a_runner_too() -> None:
    async def count(call: Call) -> Any:
        for number in range(50):
            yield texts(str(number))

    pair = pipe_pair(pipe_pair(Double(stream=count)))
    async with pair.lifespan():
        assert values((await pair.call(a_call("x"))).docs) == ["x"]
        async with aclosing(pair.stream(a_call(endpoint="/stream"))) as stream:
            assert [[str(number)] for number in range(50)] == [values(docs) async for docs in stream]


async def test_leaving_its_lifespan_waits_for_the_clean_up_of_a_stream_without_a_reader() -> None:
    closed = asyncio.Event()

    async def careful(call: Call) -> Any:
        try:
            while True:
                yield texts("x")
        finally:
            for _ in range(50):
                await asyncio.sleep(0)
            closed.set()

    pair = pipe_pair(Double(stream=careful))
    async with pair.lifespan():
        stream = pair.stream(a_call(endpoint="/stream"))
        await anext(stream)

    assert closed.is_set()
    await stream.aclose()


async def test_calls_open_when_the_runner_stops_hear_its_own_word() -> None:
    started, stopping, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Stopping(Double):
        """Ends its open call itself when its lifespan ends."""

        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            stopping.set()
            await ended.wait()

    async def until_stopped(call: Call) -> Result:
        started.set()
        await stopping.wait()
        ended.set()
        raise NotReady("the runner's own word")

    pair = pipe_pair(Stopping(until_stopped))
    async with pair.lifespan():
        running = asyncio.create_task(pair.call(a_call("x")))
        await started.wait()

    with pytest.raises(NotReady, match="the runner's own word"):
        await running
