"""The part of every Runner's contract that is about streams."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from jina_asgi.errors import ExecutorError
from jina_asgi.testing.calling import PATIENCE, Check, MakeRunner, Running, all_docs, call_to, raised
from jina_asgi.testing.executors import Probe, Text
from jina_asgi.types import Call


async def a_stream_gives_one_doc_at_a_time(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for endpoint in ("/stream", "/stream_sync"):
            steps = await all_docs(runner.runner, call_to(runner.runner, endpoint, [Text(text="t")], {"n": 50}))
            assert [len(docs) for docs in steps] == [1] * 50
            assert [docs.typed[0].text for docs in steps] == [f"t{index}" for index in range(50)]
            await runner.saw("closed t")


async def closing_a_stream_early_closes_the_generator_first(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for endpoint in ("/stream", "/stream_sync"):
            call = call_to(runner.runner, endpoint, [Text(text=endpoint)], {"n": 10_000})
            async with aclosing(runner.runner.stream(call)) as steps:
                assert (await anext(steps)).typed[0].text == f"{endpoint}0"
            await runner.has_closed(endpoint, now=getattr(make, "confirms_closing", True))


async def cancelling_within_a_step_closes_the_generator_first(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for endpoint in ("/stream", "/stream_sync"):
            call = call_to(runner.runner, endpoint, [Text(text=endpoint)], {"n": 10_000, "pause": 0.05})
            arrived = asyncio.Event()
            task = asyncio.ensure_future(all_docs(runner.runner, call, arrived))
            await asyncio.wait_for(arrived.wait(), PATIENCE)
            task.cancel()
            await raised(task, asyncio.CancelledError)
            await runner.has_closed(endpoint, now=getattr(make, "confirms_closing", True))


async def an_error_in_a_stream_comes_after_its_docs(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for endpoint in ("/stream", "/stream_sync"):
            got = []
            call = call_to(runner.runner, endpoint, [Text(text="t")], {"n": 9, "fail_at": 2})
            try:
                async with aclosing(runner.runner.stream(call)) as steps:
                    async for docs in steps:
                        got.append(docs.typed[0].text)  # kept when the stream fails
            except ExecutorError as error:
                assert "in the middle" in str(error)  # what came before it matters too
            assert got == ["t0", "t1"]


async def streams_take_turns(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        calls = [
            call_to(runner.runner, "/stream_sync", [Text(text=name)], {"n": 20, "pause": 0.002}) for name in ("a", "b")
        ]
        order: list[str] = []

        async def read(call: Call) -> None:
            async with aclosing(runner.runner.stream(call)) as steps:
                async for docs in steps:
                    order.append(docs.typed[0].text[0])

        await asyncio.gather(*map(read, calls))
        assert order != sorted(order)
        assert sorted(order) == ["a"] * 20 + ["b"] * 20


stream_checks: tuple[Check, ...] = (
    a_stream_gives_one_doc_at_a_time,
    closing_a_stream_early_closes_the_generator_first,
    cancelling_within_a_step_closes_the_generator_first,
    an_error_in_a_stream_comes_after_its_docs,
    streams_take_turns,
)
