"""A connection whose other end is broken or hostile: dropped or cut off, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import pickle
import struct
from dataclasses import replace
from typing import Any

import pytest

from jina_asgi.errors import (
    DefinitionError,
    ExecutorError,
    InvalidRequest,
    NotReady,
    ProtocolError,
    ReplicaDied,
    UnknownEndpoint,
)
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames._heads import (
    CallHead,
    CreditHead,
    ErrorHead,
    GoodbyeHead,
    Hello,
    ResultHead,
    error_of,
    read,
    write,
    write_error,
)
from jina_asgi.protocols.frames._rules import STRAYS_LIMIT
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.pipe import pipe
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.types import Call, Result
from tests.doubles.frames import CALLED, Double, RawEnd, a_call, client_of_raw, hello, raw_to_server, texts, values

HEAD = write(CallHead("/call", "id"))


async def test_late_duplicate_and_unknown_answers_reach_no_caller() -> None:
    async with client_of_raw() as (client, far):
        cancelled = asyncio.create_task(client.call(a_call("cancelled")))
        old = await far.next(_layout.CALL)
        cancelled.cancel()
        await far.next(_layout.CANCEL)
        running = asyncio.create_task(client.call(a_call("running")))
        asked = await far.next(_layout.CALL)

        far.send(_layout.RESULT, old.request, docs=texts("late").encoded)
        far.send(_layout.RESULT, old.request, docs=texts("duplicate").encoded)
        far.send(_layout.RESULT, 12345, docs=texts("unknown").encoded)
        far.send(_layout.RESULT, asked.request, docs=texts("right").encoded)

        assert values((await running).docs) == ["right"]
        assert client._connection is not None
        assert (client._connection.state.late, client._connection.state.strays) == (1, 2)


async def test_a_side_that_goes_on_sending_unknown_answers_is_cut_off() -> None:
    async with client_of_raw() as (client, far):
        running = asyncio.create_task(client.call(a_call("x")))
        await far.next(_layout.CALL)
        for _ in range(STRAYS_LIMIT + 1):
            far.send(_layout.RESULT, 12345)
        with pytest.raises(ReplicaDied) as caught:
            await running
        assert isinstance(caught.value.__cause__, ProtocolError)
        await far.lost.wait()


async def test_half_a_frame_and_death_fail_what_is_open() -> None:
    async with client_of_raw() as (client, far):
        calls = [asyncio.create_task(client.call(a_call(str(number)))) for number in range(2)]
        asked = await far.next(_layout.CALL)
        out: list[Any] = []
        _layout.write_frame(out, _layout.RESULT, asked.request, b"", texts("x").encoded)
        far.transport.write(b"".join(out)[:-1])
        far.transport.close()
        for call in calls:
            with pytest.raises(ReplicaDied):
                await call


@pytest.mark.parametrize(
    "data", [b"\xff" * 22, pickle.dumps({"a": 1}) * 10, struct.pack("<IQBBII", 2**32 - 1, 1, _layout.RESULT, 0, 0, 0)]
)
async def test_bytes_that_are_no_frames_end_the_connection(data: bytes) -> None:
    async with client_of_raw() as (client, far):
        running = asyncio.create_task(client.call(a_call("x")))
        await far.next(_layout.CALL)
        far.transport.write(data)
        with pytest.raises(ReplicaDied):
            await running
        await far.lost.wait()
        with pytest.raises(NotReady):
            await client.call(a_call("x"))

    async with raw_to_server(Double()) as (near, server):
        near.transport.write(data)
        await near.lost.wait()
        await server.wait_closed()


async def test_results_that_nest_too_deep_to_be_read_fail_their_own_call() -> None:
    async with client_of_raw() as (client, far):
        running = asyncio.create_task(client.call(a_call("x")))
        asked = await far.next(_layout.CALL)
        far.send(_layout.RESULT, asked.request, write(ResultHead(b"\x91" * 5000)))
        with pytest.raises(ExecutorError, match="results cannot be read"):
            await running
        assert not far.lost.is_set()


@pytest.mark.parametrize(("kind", "head"), [(_layout.RESULT, b"\xc1"), (_layout.ERROR, b"\xc1"), (_layout.ERROR, b"")])
async def test_an_answer_that_cannot_be_read_ends_the_connection(kind: int, head: bytes) -> None:
    async with client_of_raw() as (client, far):
        running = asyncio.create_task(client.call(a_call("x")))
        asked = await far.next(_layout.CALL)
        far.send(kind, asked.request, head)
        with pytest.raises(ProtocolError):
            await running
        await far.lost.wait()


async def test_an_item_without_credit_ends_the_connection() -> None:
    async with client_of_raw() as (client, far):
        stream = client.stream(a_call("x", endpoint="/stream"))
        first = asyncio.create_task(anext(stream))
        asked = await far.next(_layout.STREAM)
        credit = read(asked, CallHead)
        for _ in range(credit.items + 1):
            far.send(_layout.ITEM, asked.request, docs=texts("x").encoded)
        await far.lost.wait()
        await first
        with pytest.raises(ReplicaDied):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((_layout.HELLO, 0, hello(low=2, high=4, version=4)), "chose version 4"),
        ((_layout.HELLO, 0, hello(magic="other")), "in the hello"),
        ((_layout.RESULT, 1, b""), "expected a hello"),
        ((_layout.HELLO, 0, write(Hello("jina_asgi frames", 2, 2, version=2, endpoints=[{}]))), "no endpoint"),
        ((_layout.ERROR, 0, write_error(ProtocolError("no version in common"))), "no version in common"),
    ],
)
async def test_a_client_refuses_another_hello(answer: tuple[int, int, bytes], complaint: str) -> None:
    far = RawEnd()

    async def connect(factory: Any) -> Any:
        near = factory()
        transport, _ = pipe(near, far)
        far.send(*answer)
        return transport, near

    with pytest.raises(ProtocolError, match=complaint):
        async with FrameClient(connect).lifespan():
            raise AssertionError("not reached")
    async with asyncio.timeout(5):
        await far.lost.wait()


async def test_the_reason_of_a_refusal_comes_as_the_error_that_it_is() -> None:
    class Unready(Double):
        """A Runner whose endpoints cannot be told."""

        @property
        def endpoints(self) -> Any:
            raise NotReady("still loading")

        @endpoints.setter
        def endpoints(self, value: Any) -> None:
            return

    async def connect(factory: Any) -> Any:
        near = factory()
        return pipe(near, FrameServer(Unready()))[0], near

    with pytest.raises(NotReady, match="still loading"):
        async with FrameClient(connect).lifespan():
            raise AssertionError("not reached")


@pytest.mark.parametrize("dies", [True, False])
async def test_an_other_side_without_a_hello_is_not_waited_for(dies: bool) -> None:
    far = RawEnd()

    async def connect(factory: Any) -> Any:
        near = factory()
        transport, _ = pipe(near, far)
        if dies:
            far.transport.close()
        return transport, near

    with pytest.raises(NotReady, match="before its hello" if dies else "no hello came within"):
        async with FrameClient(connect, hello_timeout=0.02).lifespan():
            raise AssertionError("not reached")
    await far.lost.wait()


async def test_a_server_cuts_off_who_says_no_hello() -> None:
    near = RawEnd()
    pipe(near, FrameServer(Double(), hello_timeout=0.02))

    async with asyncio.timeout(5):
        await near.lost.wait()


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        ((_layout.HELLO, 0, hello(low=7, high=9)), "2 to 2 here, 7 to 9 there"),
        ((_layout.HELLO, 0, hello(limit=10)), "limit"),
        ((_layout.CALL, 1, HEAD), "expected a hello"),
        ((_layout.HELLO, 0, bytes(1 << 20)), "over the limit"),
    ],
)
async def test_a_server_says_why_it_refuses_a_hello(frame: tuple[int, int, bytes], complaint: str) -> None:
    async with raw_to_server(Double(), greet=False) as (near, _):
        near.send(*frame)
        error = error_of(read(await near.next(_layout.ERROR), ErrorHead))
        await near.lost.wait()

    assert type(error) is ProtocolError
    assert complaint in error.message


async def test_endpoints_that_cannot_be_described_refuse_the_connection_and_all_that_follows() -> None:
    odd = replace(CALLED, batching={"custom_metric": len})
    async with raw_to_server(runner := Double(endpoints={"/call": odd}), greet=False) as (near, _):
        out: list[Any] = []
        _layout.write_frame(out, _layout.HELLO, 0, hello())
        _layout.write_frame(out, _layout.CALL, 1, HEAD)
        near.transport.write(b"".join(out))
        assert type(error_of(read(await near.next(_layout.ERROR), ErrorHead))) is DefinitionError
        await near.lost.wait()

    assert runner.admitted == []


@pytest.mark.parametrize(
    "frames",
    [
        [(_layout.CALL, 1, HEAD), (_layout.CALL, 1, HEAD)],
        [(_layout.CALL, 2, HEAD), (_layout.CALL, 1, HEAD)],
        [(_layout.CALL, 0, HEAD)],
        [(_layout.CANCEL, 1, b"")],
        [(_layout.RESULT, 1, b"")],
        [(_layout.HELLO, 0, hello())],
        [(_layout.ERROR, 0, write_error(ProtocolError("you broke it")))],
        [(_layout.CALL, 1, HEAD), (_layout.CREDIT, 1, write(CreditHead(1, 1)))],
        [(_layout.STREAM, 1, write(CallHead("/stream", "id"))), (_layout.CREDIT, 1, b"\xc1")],
    ],
)
async def test_an_asking_side_that_breaks_the_rules_is_cut_off_and_its_calls_are_cancelled(frames: Any) -> None:
    async def hang(_: Call) -> Result:
        return await asyncio.Future()

    async with raw_to_server(runner := Double(hang)) as (near, server):
        for frame in frames:
            near.send(*frame)
        async with asyncio.timeout(5):
            await near.lost.wait()
            await server.wait_closed()

    assert runner.places == 0


@pytest.mark.parametrize(
    "head",
    [
        b"\xc1",
        b"",
        write(CallHead("/call", "id", parameters=b"\xc1")),
        write(CallHead("/call", "id", parameters=b"\x91" * 5000)),
        write(CallHead("/call", "id", parameters=b"\x01")),
        write(CallHead("/call", "id", identity=b"\xc1")),
        write(CallHead("/call", "id", sources=[("a", 1), ("b", 1)])),
    ],
)
async def test_a_call_that_cannot_be_read_fails_alone(head: bytes) -> None:
    async with raw_to_server(Double()) as (near, _):
        near.send(_layout.CALL, 1, head, texts("x").encoded)
        assert isinstance(error_of(read(await near.next(_layout.ERROR), ErrorHead)), InvalidRequest)
        near.send(_layout.CALL, 2, write(CallHead("/absent", "id")))
        assert isinstance(error_of(read(await near.next(_layout.ERROR), ErrorHead)), UnknownEndpoint)
        near.send(_layout.CALL, 3, HEAD, texts("x").encoded)
        await near.next(_layout.RESULT)


async def test_a_request_that_was_never_started_differs_from_one_that_was() -> None:
    async with client_of_raw() as (client, far):
        calls = [asyncio.create_task(client.call(a_call(str(number)))) for number in range(2)]
        first = await far.next(_layout.CALL)
        await far.next(_layout.CALL)
        far.send(_layout.GOODBYE, 0, write(GoodbyeHead(first.request)))
        far.transport.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)

    assert [ReplicaDied, NotReady] == [type(error) for error in errors]
