"""Calls that serving's end cuts short: whether one had begun decides what it is told, wherever it was."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, JinaASGI, dynamic_batching, requests
from jina_asgi.documents.codec import codec
from jina_asgi.errors import NotReady, ReplicaDied, Unavailable
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.runners.local.runner import LocalRunner
from jina_asgi.settings import DeploymentSettings
from jina_asgi.testing import ASGITransport
from jina_asgi.types import Call, Context, Runner

GRACE = 0.05


class Text(BaseDoc):
    text: str


class Stuck(Executor):
    """Works on the first document until it is stopped, and notes every one that it was given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ran: list[str] = []
        self.begun = threading.Event()
        INSTANCES.append(self)

    def note(self, docs: Any) -> None:
        self.ran += [doc.text for doc in docs]
        self.begun.set()

    @requests(on="/async")
    async def on_the_loop(self, docs: DocList[Text]) -> DocList[Text]:
        self.note(docs)
        await asyncio.Event().wait()
        return docs

    @requests(on="/sync")
    def in_a_thread(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        self.note(docs)
        while not context.cancelled:
            pass
        return docs

    @dynamic_batching(preferred_batch_size=1)
    @requests(on="/batched")
    async def batched(self, docs: DocList[Text]) -> DocList[Text]:
        self.note(docs)
        await asyncio.Event().wait()
        return docs

    @dynamic_batching(preferred_batch_size=1)
    @requests(on="/batched-sync")
    def batched_sync(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        self.note(docs)
        while not context.cancelled:
            pass
        return docs

    @requests(on="/steps")
    def steps(self, doc: Text, context: Context) -> Iterator[Text]:
        self.note([doc])
        while not context.cancelled:
            pass
        yield doc


INSTANCES: list[Stuck] = []


async def asked(runner: Runner, endpoint: str, text: str) -> str:
    """What a call is told."""
    found = runner.endpoints[endpoint]
    call = Call(endpoint, codec(found.input).docs([Text(text=text)]), {}, Context())
    try:
        if found.kind == "stream":
            async with aclosing(runner.stream(call)) as steps:
                return str([docs async for docs in steps])
        return str(await runner.call(call))
    except Unavailable as error:
        return type(error).__name__


@pytest.mark.parametrize("over", [lambda runner: runner, pipe_pair], ids=["in process", "frames"])
@pytest.mark.parametrize("endpoint", ["/async", "/sync", "/batched", "/batched-sync", "/steps"])
async def test_only_a_call_that_did_not_begin_is_asked_to_come_back(endpoint: str, over: Callable[..., Runner]) -> None:
    runner = over(Deployment(Stuck, grace=GRACE).runner)
    async with runner.lifespan():
        stuck = INSTANCES[-1]
        first = asyncio.ensure_future(asked(runner, endpoint, "first"))
        assert await asyncio.to_thread(stuck.begun.wait, 5)
        second = asyncio.ensure_future(asked(runner, endpoint, "second"))
        await asyncio.sleep(GRACE / 2)
    told = dict(zip(("first", "second"), await asyncio.wait_for(asyncio.gather(first, second), 5), strict=True))
    may_have = {text for text, said in told.items() if said == ReplicaDied.__name__}
    assert set(told.values()) <= {ReplicaDied.__name__, NotReady.__name__}
    assert set(stuck.ran) == may_have


async def test_http_says_of_a_call_that_was_cut_short_that_it_may_have_run() -> None:
    asgi = JinaASGI(Deployment(Stuck, grace=GRACE), wait_ready=True)
    async with httpx.AsyncClient(transport=ASGITransport(asgi), base_url="http://test") as http:
        async with asgi.lifespan():
            stuck = INSTANCES[-1]
            calls = [asyncio.ensure_future(http.post("/sync", json={"data": {"text": text}})) for text in "ab"]
            assert await asyncio.to_thread(stuck.begun.wait, 5)
            await asyncio.sleep(GRACE / 2)
        answers = await asyncio.wait_for(asyncio.gather(*calls), 5)
    told = [(answer.status_code, answer.headers.get("x-jina-executed")) for answer in answers]
    assert (503, "maybe") == told[0]
    assert (503, "maybe" if "b" in stuck.ran else None) == told[
        1
    ]  # its thread may come to it before the loop gives it up


async def test_a_stream_of_a_calls_answer_is_cancelled_once() -> None:
    runner = LocalRunner(Stuck, DeploymentSettings.of({"name": "one", "grace": GRACE}))

    async def read() -> int:
        docs = codec(runner.endpoints["/async"].input).docs(DocList[Text]([Text(text="a")]))
        with pytest.raises(ReplicaDied):
            async with aclosing(runner.stream(Call("/async", docs, {}, Context()))) as steps:
                await anext(steps)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with runner.lifespan():
        reading = asyncio.create_task(read())
        assert await asyncio.to_thread(INSTANCES[-1].begun.wait, 10.0)
    assert 0 == await reading
