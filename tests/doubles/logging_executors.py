"""Executors whose code logs while each kind of call runs, never the documents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from typing import Any

from docarray import BaseDoc, DocList

from jina_asgi import Executor, dynamic_batching, requests

own = logging.getLogger(__name__)


class Note(BaseDoc):
    text: str = ""


class Other(BaseDoc):
    """Has a field of the same name and of another type."""

    text: list[str] = []


class Talks(Executor):
    """Its own module's logger, and the Executor's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        own.warning("loads")

    @requests(on="/sync")
    def sync(self, docs: DocList[Note]) -> DocList[Note]:
        own.warning("runs sync")
        self.logger.warning("runs sync as an Executor")
        return docs

    @requests(on="/async")
    async def asynchronous(self, docs: DocList[Note]) -> DocList[Note]:
        own.warning("begins async")
        await asyncio.sleep(0)
        own.warning("ends async")
        return docs

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=3, timeout=20_000, gather="window")
    def batched(self, docs: DocList[Note]) -> DocList[Note]:
        own.warning("runs a batch of %d", len(docs))
        return docs

    @requests(on="/batched_async")
    @dynamic_batching(preferred_batch_size=3, timeout=20_000, gather="window")
    async def batched_async(self, docs: DocList[Note]) -> DocList[Note]:
        await asyncio.sleep(0)
        own.warning("awaits a batch of %d", len(docs))
        return docs

    @requests(on="/count")
    def count(self, doc: Note) -> Generator[Note, None, None]:
        for number in range(3):
            own.warning("counts %d", number)
            yield Note(text=str(number))

    @requests(on="/count_async")
    async def count_async(self, doc: Note) -> AsyncGenerator[Note, None]:
        for number in range(3):
            await asyncio.sleep(0)
            own.warning("counts async %d", number)
            yield Note(text=str(number))

    @requests(on="/print")
    def printed(self, docs: DocList[Note]) -> DocList[Note]:
        print("printed, not logged")
        print('{"message": "forged"}')
        return docs

    @requests(on="/fail")
    def fail(self, docs: DocList[Note]) -> DocList[Note]:
        own.warning("will fail")
        raise ValueError("of no use")

    @requests(on="/misfit")
    def misfit(self, docs: DocList[Note]) -> DocList[Note]:
        return [Other(text=[doc.text]) for doc in docs]  # type: ignore[return-value]  # that is the point

    @requests(on="/text")
    def text(self, docs: DocList[Note]) -> DocList[Note]:
        return [doc.text for doc in docs]  # type: ignore[return-value]  # that is the point
