"""Calls that cross from one event loop to another: cancelled on their way, and cut off by the end of the other side."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, NotReady, ReplicaDied, requests
from jina_asgi.documents.codec import codec
from jina_asgi.runners.bridge import BridgeRunner
from jina_asgi.types import Call

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Text(BaseDoc):
    text: str = ""


class Model(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.told: list[str] = []
        self.began, self.step = threading.Event(), threading.Event()
        there.append(self)

    @requests(on="/who")
    async def who(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(text=who.get())])

    @requests(on="/fail")
    async def fail(self, docs: DocList[Text]) -> DocList[Text]:
        raise KeyError("x")

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("cancelled")
        return docs

    @requests(on="/steps")
    def steps(self, doc: Text) -> Iterator[Text]:
        try:
            yield doc
            self.began.set()
            assert self.step.wait(10.0)  # a step that cannot be interrupted
            self.told.append("stepped")
            yield doc
        finally:
            self.told.append("closed")


there: list[Model] = []


@asynccontextmanager
async def bridged() -> AsyncIterator[tuple[BridgeRunner, Model, Any]]:
    """A Runner that lives on a loop in another thread, its Executor, and what ends that loop."""
    deployment, ready, stop = Deployment(uses=Model, grace=0.0), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        async with deployment.lifespan():
            ready.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(live())

    thread = threading.Thread(target=run)
    thread.start()
    assert await asyncio.to_thread(ready.wait, 10.0)
    bridge = BridgeRunner(deployment.runner, loop)

    async def end() -> None:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
            await asyncio.to_thread(thread.join)
        bridge.close()

    try:
        yield bridge, there[-1], end
    finally:
        await end()


def a_call(bridge: BridgeRunner, name: str) -> Call:
    reader = codec(bridge.endpoints[name].input)
    return Call(name, reader.docs(reader.wrap([Text(text="hi")])))


async def test_context_variables_cross_over() -> None:
    async with bridged() as (bridge, _, _end):
        who.set("me")
        assert "me" == (await bridge.call(a_call(bridge, "/who"))).docs.typed[0].text


async def test_errors_come_back_with_their_cause() -> None:
    async with bridged() as (bridge, _, _end):
        with pytest.raises(Exception, match="KeyError") as caught:
            await bridge.call(a_call(bridge, "/fail"))
        assert isinstance(caught.value.__cause__, KeyError)


async def test_a_cancelled_caller_leaves_when_the_work_has_ended() -> None:
    async with bridged() as (bridge, model, _end):
        call = asyncio.create_task(bridge.call(a_call(bridge, "/wait")))
        assert await asyncio.to_thread(model.began.wait, 10.0)
        call.cancel()
        await asyncio.wait([call], timeout=10.0)
        assert [True, ["cancelled"]] == [call.cancelled(), model.told]


async def test_a_stream_that_is_cancelled_within_a_step_is_closed_after_it() -> None:
    async with bridged() as (bridge, model, _end):

        async def read() -> None:
            async with aclosing(bridge.stream(a_call(bridge, "/steps"))) as steps:
                async for _ in steps:
                    pass

        reading = asyncio.create_task(read())
        assert await asyncio.to_thread(model.began.wait, 10.0)
        reading.cancel()
        reading.cancel()
        asyncio.get_running_loop().call_later(0.05, model.step.set)
        await asyncio.wait([reading], timeout=10.0)
        assert [True, ["stepped", "closed"]] == [reading.cancelled(), model.told]


async def test_the_end_of_the_other_loop_is_reported_to_waiting_and_later_callers() -> None:
    async with bridged() as (bridge, model, end):
        waiting = asyncio.create_task(bridge.call(a_call(bridge, "/wait")))
        assert await asyncio.to_thread(model.began.wait, 10.0)
        await end()
        with pytest.raises(ReplicaDied):
            await waiting
        with pytest.raises(NotReady):
            await bridge.call(a_call(bridge, "/who"))
