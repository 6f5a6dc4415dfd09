"""One limit bounds the whole end of serving, in process: what does not return is left behind, and named in the log."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, Flow, ReplicaDied, dynamic_batching, requests
from jina_asgi.concurrency import lifecycle
from jina_asgi.serving.source import Source

GRACE = 0.2


class Text(BaseModel):
    text: str = ""


class Stuck(Executor):
    """Has calls that do not return until `release` is set."""

    def __init__(self, release: threading.Event, began: threading.Event, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release, self.began = release, began

    def hang(self) -> None:
        self.began.set()
        assert self.release.wait(60.0)

    @requests(on="/call")
    def call(self, docs: list[Text]) -> list[Text]:
        self.hang()
        return docs

    @dynamic_batching(preferred_batch_size=2)
    @requests(on="/batch")
    def batch(self, docs: list[Text]) -> list[Text]:
        self.hang()
        return docs

    @requests(on="/steps")
    def steps(self, doc: Text) -> Iterator[Text]:
        yield doc
        self.hang()

    @requests(on="/endless")
    async def endless(self, doc: Text) -> AsyncIterator[Text]:
        while True:
            yield doc
            await asyncio.sleep(0.01)


async def ask(source: Source, endpoint: str) -> None:
    if endpoint in ("/steps", "/endless"):
        async with aclosing(source.stream(endpoint, Text())) as steps:
            async for _ in steps:
                pass
    else:
        await source.call(endpoint, [Text()])


@pytest.fixture
def events() -> Iterator[dict[str, threading.Event]]:
    made = {"release": threading.Event(), "began": threading.Event()}
    yield made
    made["release"].set()


def deployment(events: Any) -> Source:
    return Deployment(uses=Stuck, uses_with=events, grace=GRACE, name="stuck")


def flow(events: Any) -> Source:
    return Flow(grace=GRACE).add(uses=Stuck, uses_with=events, grace=GRACE, name="stuck")


def shards(events: Any) -> Source:
    return Deployment(uses=Stuck, uses_with=events, grace=GRACE, name="stuck", shards=2)


@pytest.mark.parametrize("endpoint", ["/call", "/batch", "/steps"])
@pytest.mark.parametrize("made", [deployment, flow, shards])
def test_a_call_that_never_returns_does_not_hold_up_the_end(
    made: Any, endpoint: str, events: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "CLOSING", 0.2)

    async def main() -> None:
        source = made(events)
        async with source:
            asked = asyncio.create_task(ask(source, endpoint))
            assert await asyncio.to_thread(events["began"].wait, 10.0)
        with pytest.raises(ReplicaDied):  # it had begun
            await asked

    start = time.monotonic()
    with caplog.at_level(logging.ERROR, "jina_asgi"):
        asyncio.run(main())  # which waits for every task
    assert time.monotonic() - start < 20.0  # of which each layer takes one or two
    named = [line for line in caplog.messages if "abandoned: stuck" in line]
    assert 1 == len(named)
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("endpoint", ["/call", "/batch", "/steps"])
@pytest.mark.parametrize("made", [deployment, flow, shards])
async def test_a_caller_is_told_while_its_call_still_runs(made: Any, endpoint: str, events: Any) -> None:
    async def told() -> None:
        with pytest.raises(ReplicaDied):
            await asked
        events["release"].set()  # else leaving would take as long as closing may

    async with made(events) as source:
        asked = asyncio.create_task(ask(source, endpoint))
        telling = asyncio.create_task(told())
        assert await asyncio.to_thread(events["began"].wait, 10.0)
        start = time.monotonic()
    assert time.monotonic() - start < 10.0
    await telling


async def test_a_step_that_does_not_return_holds_up_one_thread(events: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CLOSING", 0.2)
    closed, generator_closed = list[bool](), threading.Event()

    class Closing(Stuck):
        @requests(on="/steps")
        def steps(self, doc: Text) -> Iterator[Text]:
            try:
                self.hang()
                yield doc
            finally:
                generator_closed.set()

        def close(self) -> None:
            closed.append(generator_closed.is_set())

    async with Deployment(uses=Closing, uses_with=events, grace=GRACE, allow_concurrent=2) as source:
        asked = asyncio.create_task(ask(source, "/steps"))
        assert await asyncio.to_thread(events["began"].wait, 10.0)
    with pytest.raises(ReplicaDied):
        await asked
    assert [False] == closed
    events["release"].set()
    assert await asyncio.to_thread(generator_closed.wait, 10.0)


async def test_the_grace_period_is_counted_once_for_a_batch_and_a_stream(events: Any) -> None:
    source = Deployment(uses=Stuck, uses_with=events, grace=2.0)
    ended: list[float] = []

    async def stream() -> None:
        with pytest.raises(ReplicaDied):
            await ask(source, "/endless")
        ended.append(time.monotonic())
        events["release"].set()

    async with source:
        streaming = asyncio.create_task(stream())
        batch = asyncio.create_task(ask(source, "/batch"))
        assert await asyncio.to_thread(events["began"].wait, 10.0)
        start = time.monotonic()
    await streaming
    with pytest.raises(ReplicaDied):
        await batch
    assert 1.5 < ended[0] - start < 3.7


async def test_a_call_that_ends_within_the_limit_is_waited_for_and_the_executor_closed(events: Any) -> None:
    closed = []

    class Closing(Stuck):
        def close(self) -> None:
            closed.append(True)

    async with Deployment(uses=Closing, uses_with=events, grace=20.0) as source:
        asked = asyncio.create_task(ask(source, "/call"))
        assert await asyncio.to_thread(events["began"].wait, 10.0)
        asyncio.get_running_loop().call_later(0.1, events["release"].set)
    await asked
    assert [True] == closed


async def test_a_second_life_has_a_grace_period_of_its_own(events: Any) -> None:
    source = Deployment(uses=Stuck, uses_with=events, grace=0.5)
    for _ in range(2):
        events["release"].clear()
        events["began"].clear()
        async with source:
            asked = asyncio.create_task(ask(source, "/call"))
            assert await asyncio.to_thread(events["began"].wait, 10.0)
            asyncio.get_running_loop().call_later(0.1, events["release"].set)
        await asked
        await asyncio.sleep(0.6)  # longer than the first one's
