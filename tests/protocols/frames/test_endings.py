"""How a call through the framed protocol ends early, and always: cancelled, late, cut off, drained."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jina_asgi.errors import DeadlineExceeded, ExecutorError, NotReady, ReplicaDied
from jina_asgi.protocols.frames import _layout
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.connection import WRITE_HIGH
from jina_asgi.protocols.frames.pipe import pipe
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.types import Call, Result
from tests.doubles.frames import ENDPOINTS, Double, a_call, client_of_raw, served, texts, values

OVER = pytest.mark.parametrize("over", ["pipe", "socket"])


async def test_a_cancelled_call_is_cancelled_on_the_other_side_and_gives_its_place_back() -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    seen: list[Call] = []

    async def hang(call: Call) -> Result:
        seen.append(call)
        started.set()
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    async with served(runner := Double(hang)) as (client, _):
        task = asyncio.create_task(client.call(a_call("x")))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(1):
            await ended.wait()

    assert seen[0].context.cancelled
    assert runner.places == 0


async def test_a_call_cancelled_before_it_is_sent_never_starts_or_ends_at_once() -> None:
    async with served(runner := Double()) as (client, _):
        task = asyncio.create_task(client.call(a_call("x")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert values((await client.call(a_call("y"))).docs) == ["y"]

    assert runner.places == 0


async def test_a_deadline_holds_though_the_other_side_is_silent() -> None:
    async with client_of_raw() as (client, far):
        with pytest.raises(DeadlineExceeded):
            await client.call(a_call("x", deadline=time.monotonic() + 0.02))
        called = await far.next(_layout.CALL)
        assert called.request == (await far.next(_layout.CANCEL)).request


@pytest.mark.parametrize("deadline", [0.0, float("-inf"), float("nan")])
async def test_a_call_whose_deadline_has_passed_is_not_sent(deadline: float) -> None:
    async with served(runner := Double()) as (client, _):
        with pytest.raises(DeadlineExceeded):
            await client.call(a_call("x", deadline=deadline))

    assert runner.admitted == []


async def test_a_deadline_in_a_thousand_years_is_kept_without_a_timer() -> None:
    async with served(Double()) as (client, _):
        for deadline in (3e10, float("inf")):
            assert values((await client.call(a_call("x", deadline=deadline))).docs) == ["x"]


@OVER
async def test_losing_the_connection_fails_every_open_call_once_and_later_ones_are_not_sent(over: str) -> None:
    async def hang(call: Call) -> Result:
        return await asyncio.Future()

    async with served(Double(hang), over) as (client, server):
        calls = [asyncio.create_task(client.call(a_call(str(number)))) for number in range(3)]
        while len(server._tasks) < 3:
            await asyncio.sleep(0)
        server.abort()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(NotReady, match="lost"):
            await client.call(a_call("x"))
        with pytest.raises(NotReady):
            client.admit("/call")

    assert [ReplicaDied] * 3 == [type(error) for error in errors]
    assert len({id(error) for error in errors}) == 3


@OVER
async def test_losing_the_connection_cancels_what_runs_for_it(over: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(call: Call) -> Result:
        started.set()
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with served(runner := Double(hang), over) as (client, server):
        call = asyncio.create_task(client.call(a_call("x")))
        await started.wait()
        assert client._connection is not None
        client._connection.abort()
        with pytest.raises(ReplicaDied):
            await call
        await server.wait_closed()

    assert cancelled.is_set()
    assert runner.places == 0


@OVER
async def test_draining_finishes_what_runs_refuses_what_comes_and_closes(over: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> Result:
        started.set()
        await go_on.wait()
        return Result(call.docs)

    async with served(Double(wait), over) as (client, server):
        running = asyncio.create_task(client.call(a_call("x")))
        await started.wait()
        drain = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        with pytest.raises(NotReady, match="draining"):
            await client.call(a_call("crosses the goodbye"))
        with pytest.raises(NotReady, match="stopping"):
            await client.call(a_call("after the goodbye"))
        go_on.set()
        assert values((await running).docs) == ["x"]
        async with asyncio.timeout(5):
            await drain
        assert server.is_lost


async def test_draining_cancels_what_outlasts_its_grace() -> None:
    started = asyncio.Event()

    async def hang(call: Call) -> Result:
        started.set()
        return await asyncio.Future()

    async with served(Double(hang)) as (client, server):
        running = asyncio.create_task(client.call(a_call("x")))
        await started.wait()
        await server.drain(grace=0.01)
        with pytest.raises(ReplicaDied, match="stopped while this call ran"):
            await running


async def test_a_call_runs_only_within_the_lifespan_which_may_be_entered_again() -> None:
    runner = Double()

    def connect(_: Any) -> Any:
        raise ConnectionRefusedError("nobody listens")

    client = FrameClient(connect)
    with pytest.raises(NotReady):
        await client.call(a_call("x"))
    with pytest.raises(NotReady, match="known once"):
        _ = client.endpoints
    with pytest.raises(NotReady, match="nobody listens"):
        async with client.lifespan():
            raise AssertionError("not reached")
    async with served(runner) as (client, _):
        await client.call(a_call("x"))
        with pytest.raises(NotReady, match="open already"):
            async with client.lifespan():
                raise AssertionError("not reached")
    with pytest.raises(NotReady):
        await client.call(a_call("x"))
    assert client.endpoints == ENDPOINTS


async def test_leaving_the_lifespan_finishes_what_runs() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> Result:
        started.set()
        await go_on.wait()
        return Result(call.docs)

    async with served(Double(wait)) as (client, _):
        running = asyncio.create_task(client.call(a_call("x")))
        await started.wait()
        asyncio.get_running_loop().call_later(0.01, go_on.set)

    assert values((await running).docs) == ["x"]


async def test_leaving_the_lifespan_cancels_what_outlasts_its_grace() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(call: Call) -> Result:
        started.set()
        try:
            return await asyncio.Future()
        finally:
            cancelled.set()

    async with served(Double(hang), grace=0.01) as (client, _):
        running = asyncio.create_task(client.call(a_call("x")))
        await started.wait()

    with pytest.raises(ReplicaDied, match="stopped while this call ran"):
        await running
    assert cancelled.is_set()


@OVER
async def test_a_side_that_does_not_read_makes_callers_wait_within_their_deadlines(over: str) -> None:
    async with served(Double(), over) as (client, server):
        assert server._transport is not None
        server._transport.pause_reading()
        first = asyncio.create_task(client.call(a_call("x" * 5_000_000)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match="before the call could be sent"):
            await client.call(a_call("y", deadline=time.monotonic() + 0.02))
        waiting = asyncio.create_task(client.call(a_call("z")))
        server._transport.resume_reading()
        assert values((await first).docs) == ["x" * 5_000_000]
        assert values((await waiting).docs) == ["z"]


async def test_many_large_calls_of_one_turn_do_not_pile_up_unwritten() -> None:
    async with served(Double()) as (client, server):
        assert server._transport is not None
        assert client._connection is not None
        assert client._connection._transport is not None
        server._transport.pause_reading()
        calls = [asyncio.create_task(client.call(a_call("x" * 100_000))) for _ in range(30)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert client._connection._transport.get_write_buffer_size() <= WRITE_HIGH + 101_000
        server._transport.resume_reading()
        assert len(await asyncio.gather(*calls)) == 30


async def test_a_client_that_does_not_read_its_answers_gets_to_ask_no_more() -> None:
    async def large(_: Call) -> Result:
        return Result(texts("y" * 100_000))

    async with served(runner := Double(large)) as (client, _):
        link = client._connection
        assert link is not None
        assert link._transport is not None
        link._transport.pause_reading()
        calls = [asyncio.create_task(client.call(a_call(str(number)))) for number in range(100)]
        for number in range(100):  # each call leaves in a turn of its own
            calls.append(asyncio.create_task(client.call(a_call(str(number)))))
            for _ in range(5):
                await asyncio.sleep(0)
        assert len(runner.admitted) < 150
        link._transport.resume_reading()
        async with asyncio.timeout(20):
            await asyncio.gather(*calls)

    assert len(runner.admitted) == 200


async def test_an_executor_that_gives_up_by_itself_is_not_silent() -> None:
    async def give_up(_: Call) -> Result:
        raise asyncio.CancelledError

    async with served(Double(give_up)) as (client, _):
        with pytest.raises(ExecutorError, match="the caller had not cancelled"):
            await client.call(a_call("x"))


@OVER
async def test_a_client_that_reads_no_more_holds_up_closing_for_a_bounded_time(over: str) -> None:
    async def large(_: Call) -> Result:
        return Result(texts("y" * 5_000_000))

    async with served(Double(large), over) as (client, server):
        link = client._connection
        assert link is not None
        assert link._transport is not None
        server.close_timeout = 0.02
        link._transport.pause_reading()
        running = asyncio.create_task(client.call(a_call("x")))
        while server._state.last == 0 or server._tasks:
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await server.drain()
        assert server.is_lost
        link._transport.resume_reading()
        with pytest.raises(ReplicaDied):
            await running


async def test_a_cancel_while_leaving_the_lifespan_leaves_no_connection_behind() -> None:
    leaving = asyncio.Event()

    async def hang(_: Call) -> Result:
        return await asyncio.Future()

    async def live(client: FrameClient) -> None:
        async with client.lifespan():
            calls.append(asyncio.create_task(client.call(a_call("x"))))
            await asyncio.sleep(0)
            leaving.set()

    calls: list[asyncio.Task[Result]] = []
    server = FrameServer(Double(hang))

    async def connect(factory: Any) -> Any:
        near = factory()
        return pipe(near, server)[0], near

    living = asyncio.create_task(live(FrameClient(connect)))
    await leaving.wait()
    await asyncio.sleep(0)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    with pytest.raises(ReplicaDied):
        await calls[0]
    async with asyncio.timeout(5):
        await server.wait_closed()


async def test_the_callers_own_context_learns_of_a_cancel() -> None:
    async with client_of_raw() as (client, far):
        call = a_call("x")
        task = asyncio.create_task(client.call(call))
        await far.next(_layout.CALL)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert call.context.cancelled
