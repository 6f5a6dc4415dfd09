"""Streams through the framed protocol: in order, no faster than they are read, and closed before control returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from jina_asgi.documents.codec import codec
from jina_asgi.errors import DeadlineExceeded, ExecutorError, ExecutorInputError, ReplicaDied, UnknownEndpoint
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import CallHead, write
from jina_asgi.protocols.frames._rules import WINDOW_BYTES, WINDOW_ITEMS
from jina_asgi.protocols.frames.connection import WRITE_HIGH
from jina_asgi.protocols.frames.server import YIELD_AFTER
from jina_asgi.types import Call, Docs
from tests.doubles.frames import TEXT, Double, a_call, client_of_raw, raw_to_server, served, texts, values

OVER = pytest.mark.parametrize("over", ["pipe", "socket"])


def a_stream(*of: str, **context: object) -> Call:
    return a_call(*of, endpoint="/stream", **context)


class Counting:
    """A generator of numbered docs without end; it notes what it made and when it was closed."""

    def __init__(self, size: int = 0) -> None:
        self.made = 0
        self.closed = asyncio.Event()
        self._padding = "x" * size

    async def __call__(self, call: Call) -> AsyncGenerator[Docs, None]:
        try:
            while True:
                self.made += 1
                yield texts(f"{self.made}{self._padding}")
        finally:
            await asyncio.sleep(0)  # clean-up that takes a while
            self.closed.set()


async def settle() -> None:
    """Give every callback and message that is on its way the turns of the loop that it needs."""
    for _ in range(200):
        await asyncio.sleep(0)


async def read_into(got: list[str], stream: AsyncGenerator[Docs, None]) -> None:
    async for docs in stream:
        got += values(docs)


@OVER
async def test_items_come_one_by_one_in_order(over: str) -> None:
    numbers = [str(number) for number in range(100)]

    async with served(runner := Double(), over) as (client, _):
        got = [values(docs) async for docs in client.stream(a_stream(*numbers))]

    assert [[number] for number in numbers] == got
    assert runner.places == 0


async def test_a_stream_of_nothing_ends() -> None:
    async with served(Double()) as (client, _):
        assert [docs async for docs in client.stream(a_stream())] == []


@pytest.mark.parametrize("read", [0, 1, 5, 40])
@OVER
async def test_closing_early_returns_when_the_users_generator_is_closed(over: str, read: int) -> None:
    counting = Counting()

    async with served(runner := Double(stream=counting), over) as (client, _):
        stream = client.stream(a_stream())
        for number in range(read):
            assert [str(number + 1)] == values(await anext(stream))
        await stream.aclose()
        assert counting.closed.is_set() is (read > 0)
        assert runner.places == 0


async def test_cancelling_the_reader_closes_the_users_generator_before_it_ends() -> None:
    counting, started = Counting(), asyncio.Event()

    async def read() -> None:
        async with aclosing(client.stream(a_stream())) as stream:
            async for _ in stream:
                started.set()

    async with served(Double(stream=counting)) as (client, _):
        reader = asyncio.create_task(read())
        await started.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert counting.closed.is_set()


@pytest.mark.parametrize(("size", "most"), [(0, WINDOW_ITEMS), (100_000, 3), (WINDOW_BYTES, 1)])
@OVER
async def test_a_slow_reader_stops_the_generator_within_a_bounded_buffer(over: str, size: int, most: int) -> None:
    counting = Counting(size)

    async with served(Double(stream=counting), over) as (client, _):
        async with aclosing(client.stream(a_stream())) as stream:
            for read in range(1, 30):
                await anext(stream)
                await settle()
                assert counting.made <= read + most
            await settle()


async def test_many_streams_to_a_client_that_reads_nothing_wait_for_it_together() -> None:
    async with served(Double(stream=Counting(50_000))) as (client, server):
        assert client._connection is not None
        assert client._connection._transport is not None
        assert server._transport is not None
        client._connection._transport.pause_reading()
        streams = [client.stream(a_stream()) for _ in range(20)]
        first = [asyncio.create_task(anext(stream)) for stream in streams]
        await settle()
        assert server._transport.get_write_buffer_size() <= WRITE_HIGH + 20 * 51_000
        client._connection._transport.resume_reading()
        await asyncio.gather(*first)
        for stream in streams:
            await stream.aclose()


async def test_a_stalled_stream_holds_up_neither_another_nor_a_call() -> None:
    counting = Counting(50_000)

    async with served(Double(stream=counting)) as (client, _):
        async with aclosing(client.stream(a_stream())) as stalled, aclosing(client.stream(a_stream())) as other:
            await anext(stalled)
            for _ in range(100):
                await anext(other)
            assert values((await client.call(a_call("x"))).docs) == ["x"]


async def test_the_first_item_of_a_generator_that_never_waits_is_not_kept_for_the_others() -> None:
    made = 0

    async def busy(call: Call) -> AsyncGenerator[Docs, None]:
        nonlocal made
        while True:
            until = time.perf_counter() + 2 * YIELD_AFTER
            while time.perf_counter() < until:
                pass
            made += 1
            yield texts("item")

    async with served(Double(stream=busy)) as (client, _):
        async with aclosing(client.stream(a_stream())) as stream:
            await anext(stream)
            assert made < WINDOW_ITEMS / 2


@pytest.mark.parametrize("after", [0, 3])
async def test_an_error_comes_after_the_items_before_it(after: int) -> None:
    async def fail(call: Call) -> AsyncGenerator[Docs, None]:
        for number in range(after):
            yield texts(str(number))
        raise ExecutorInputError("no more")

    got: list[str] = []
    async with served(runner := Double(stream=fail)) as (client, _):
        with pytest.raises(ExecutorInputError, match="no more"):
            await read_into(got, client.stream(a_stream()))

    assert [str(number) for number in range(after)] == got
    assert runner.places == 0


async def test_an_item_that_cannot_be_encoded_ends_the_stream_and_closes_the_generator() -> None:
    closed = asyncio.Event()

    async def odd(call: Call) -> AsyncGenerator[Docs, None]:
        try:
            yield texts("even")
            yield codec(TEXT).docs([{"text": object()}])
        finally:
            closed.set()

    async with served(Double(stream=odd)) as (client, _):
        stream = client.stream(a_stream())
        assert values(await anext(stream)) == ["even"]
        with pytest.raises(ExecutorError, match="cannot be encoded"):
            await anext(stream)
        assert closed.is_set()


async def test_an_unknown_endpoint_is_refused_at_the_first_step() -> None:
    async with served(Double()) as (client, _):
        with pytest.raises(UnknownEndpoint):
            await anext(client.stream(a_call("x", endpoint="/absent")))


@OVER
async def test_losing_the_connection_ends_a_stream_after_what_had_come_and_never_cleanly(over: str) -> None:
    counting, came = Counting(), list[str]()

    async with served(Double(stream=counting), over) as (client, server):
        stream = client.stream(a_stream())
        assert values(await anext(stream)) == ["1"]
        await settle()
        server.abort()
        await server.wait_closed()
        await settle()
        with pytest.raises(ReplicaDied):
            await read_into(came, stream)

    assert len(came) >= WINDOW_ITEMS - 1
    assert [str(number + 2) for number in range(len(came))] == came
    assert counting.closed.is_set()


async def test_losing_the_connection_lets_a_reader_close_at_once() -> None:
    async with client_of_raw() as (client, far):
        stream = client.stream(a_stream())
        first = asyncio.create_task(anext(stream))
        asked = await far.next(_layout.STREAM)
        far.send(_layout.ITEM, asked.request, docs=texts("x").encoded)
        assert values(await first) == ["x"]
        far.transport.abort()
        await far.lost.wait()
        await stream.aclose()


async def test_closing_waits_for_the_far_side_to_confirm() -> None:
    async with client_of_raw() as (client, far):
        stream = client.stream(a_stream())
        first = asyncio.create_task(anext(stream))
        asked = await far.next(_layout.STREAM)
        for _ in range(2):
            far.send(_layout.ITEM, asked.request, docs=texts("x").encoded)
        await first
        closing = asyncio.create_task(stream.aclose())
        await far.next(_layout.CANCEL)
        far.send(_layout.ITEM, asked.request, docs=texts("was on its way").encoded)
        await settle()
        assert not closing.done()
        far.send(_layout.END, asked.request)
        async with asyncio.timeout(1):
            await closing


async def test_a_deadline_ends_a_stream_though_the_other_side_is_silent() -> None:
    async with client_of_raw() as (client, far):
        stream = client.stream(a_stream(deadline=time.monotonic() + 0.02))
        with pytest.raises(DeadlineExceeded):
            await anext(stream)
        await far.next(_layout.STREAM)
        await far.next(_layout.CANCEL)


async def test_closing_does_not_outlast_the_deadline_by_more_than_a_second() -> None:
    async with client_of_raw() as (client, far):
        stream = client.stream(a_stream(deadline=time.monotonic() + 0.05))
        first = asyncio.create_task(anext(stream))
        asked = await far.next(_layout.STREAM)
        far.send(_layout.ITEM, asked.request, docs=texts("x").encoded)
        await first
        async with asyncio.timeout(3):
            with pytest.raises(DeadlineExceeded, match="has not closed the stream"):
                await stream.aclose()


@OVER
async def test_losing_the_connection_closes_the_generator_of_a_stalled_reader(over: str) -> None:
    counting = Counting()

    async with served(runner := Double(stream=counting), over) as (client, server):
        stream = client.stream(a_stream())
        await anext(stream)
        await settle()  # the generator waits for credit
        assert client._connection is not None
        client._connection.abort()
        await server.wait_closed()
        await stream.aclose()

    assert counting.closed.is_set()
    assert runner.places == 0


async def test_draining_ends_an_endless_stream_after_its_grace() -> None:
    counting = Counting()

    async with served(Double(stream=counting)) as (client, server):
        stream = client.stream(a_stream())
        await anext(stream)
        await server.drain(grace=0.01)
        with pytest.raises(ReplicaDied, match="stopped"):
            await read_into([], stream)

    assert counting.closed.is_set()


async def test_leaving_the_lifespan_ends_a_stream_without_a_reader() -> None:
    counting = Counting()

    async with served(Double(stream=counting), grace=0.01) as (client, _):
        stream = client.stream(a_stream())
        await anext(stream)

    assert counting.closed.is_set()
    with pytest.raises(ReplicaDied):
        await read_into([], stream)


async def test_a_cancel_that_comes_twice_does_not_interrupt_the_users_clean_up() -> None:
    cleaning, cleaned, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def careful(call: Call) -> AsyncGenerator[Docs, None]:
        try:
            yield texts("x")
            await asyncio.Future()
        finally:
            cleaning.set()
            await go_on.wait()
            cleaned.set()

    async with raw_to_server(Double(stream=careful)) as (near, server):
        near.send(_layout.STREAM, 1, write(CallHead("/stream", "id", items=4, size=1000)))
        await near.next(_layout.ITEM)
        near.send(_layout.CANCEL, 1)
        await cleaning.wait()
        near.send(_layout.CANCEL, 1)
        near.transport.abort()
        await server.closed.wait()
        go_on.set()
        await server.wait_closed()

    assert cleaned.is_set()
