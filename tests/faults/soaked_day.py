"""What `soak_day` serves: the same Executor in each web worker, at /worker, and in a pool of one replica, at /pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from pydantic import BaseModel
from starlette.applications import Starlette

from jina_asgi import Deployment, Executor, dynamic_batching, mount, requests


class Text(BaseModel):
    text: str = ""


class Count(BaseModel):
    tasks: int


class Model(Executor):
    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/slow")
    async def slow(self, doc: Text) -> Text:
        await asyncio.sleep(0.5)
        return doc

    @dynamic_batching(preferred_batch_size=8)
    @requests(on="/work", idempotent=True)  # a bad text fails alone
    def work(self, docs: list[Text]) -> list[Text]:
        if any(doc.text == "bad" for doc in docs):
            raise ValueError("a bad text")
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Text) -> AsyncIterator[Text]:
        for _ in range(20):
            yield doc
            await asyncio.sleep(0.005)

    @requests(on="/sync_stream")
    def sync_stream(self, doc: Text) -> Iterator[Text]:
        for _ in range(20):
            yield doc

    @requests(on="/tasks")
    async def tasks(self, docs: list[Text]) -> list[Count]:
        return [Count(tasks=len(asyncio.all_tasks()))]


app = Starlette()
mount(app, "/worker", Deployment(Model, name="worker"), wait_ready=True)
mount(app, "/pool", Deployment("tests.faults.soaked_day.Model", name="pool", replicas=1), wait_ready=True)
