"""Helpers of the conformance checks: run a Runner, call it, and read what its Executor saw."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self, TypeVar

from jina_asgi.documents.codec import codec
from jina_asgi.errors import ExecutorError, Unavailable
from jina_asgi.serving.deployment import Deployment
from jina_asgi.testing.executors import Probe, Text
from jina_asgi.types import EMPTY, Call, Context, Docs, Result, Runner, resolve

E = TypeVar("E", bound=BaseException)
#: Makes the Runner under test, with an Executor class and a Deployment's options. A maker whose protocol cannot confirm
#: closing has an attribute `confirms_closing = False`: the user's generator is closed soon after a stream is left, and not
#: before.
MakeRunner = Callable[..., Runner]
#: One rule of the contract.
Check = Callable[[MakeRunner], Awaitable[None]]
PATIENCE = 10.0  # seconds after which a check stops waiting


class Running:
    """A Runner within its lifespan, with shorthands for the checks."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self.runner.lifespan())
        if "/forget" in self.runner.endpoints:
            await self.texts("/forget", "what others did")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def call(
        self, on: str, docs: list[Any], parameters: Mapping[str, Any] = EMPTY, context: Context | None = None
    ) -> Result:
        return await self.runner.call(call_to(self.runner, on, docs, parameters, context))

    async def admitted(self, on: str, docs: list[Any], *, size: int = 0) -> Result:
        """Makes a call as a protocol does: admits it first, with its size in bytes."""
        ticket = self.runner.admit(on, size=size)
        try:
            return await self.call(on, docs)
        finally:
            ticket.close()

    async def texts(self, on: str, *texts: str) -> list[str]:
        result = await self.call(on, [Text(text=text) for text in texts])
        return [doc.text for doc in result.docs.typed]

    async def answers(self, on: str) -> bool:
        try:
            return await self.texts(on, "x") != []
        except Unavailable:
            return False

    async def seen(self) -> list[str]:
        return await self.texts("/seen")

    async def saw(self, *happened: str) -> None:
        """Waits until the Executor reports that each of these events happened."""

        async def all_seen() -> bool:
            return set(happened) <= set(await self.seen())

        await self.until(all_seen)

    async def has_closed(self, stream: str, *, now: bool) -> None:
        """Whether the generator of a stream is closed: at once with `now`, else soon."""
        if now:
            assert f"closed {stream}" in await self.seen()
        else:
            await self.saw(f"closed {stream}")

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await condition():
                await asyncio.sleep(0.005)  # the Executor may be in another process: there is no event to wait for


def call_to(
    runner: Runner, on: str, docs: list[Any], parameters: Mapping[str, Any] = EMPTY, context: Context | None = None
) -> Call:
    endpoint = resolve(runner.endpoints, on) or resolve(Deployment(Probe).endpoints, on)
    assert endpoint is not None
    return Call(on, codec(endpoint.input).docs(docs), parameters, context or Context())


async def is_false(answer: Awaitable[bool]) -> bool:
    return not await answer


def output_of(on: str) -> Any:
    return Deployment(Probe).endpoints[on].output


async def all_docs(runner: Runner, call: Call, arrived: asyncio.Event | None = None) -> list[Docs]:
    steps = []
    async with aclosing(runner.stream(call)) as stream:
        async for docs in stream:
            steps.append(docs)
            if arrived is not None:
                arrived.set()
    return steps


async def first_docs(runner: Runner, call: Call) -> Docs:
    async with aclosing(runner.stream(call)) as stream:
        return await anext(stream)


async def rest_of(stream: Any) -> list[Docs]:
    return [docs async for docs in stream]


async def raised(work: Awaitable[Any], expected: type[E]) -> E:
    try:
        value = await work
    except expected as error:
        return error
    raise AssertionError(f"expected {expected.__name__}, got the answer {value!r}")


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
