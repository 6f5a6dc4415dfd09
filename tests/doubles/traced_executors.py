"""Executors that open spans of their own wherever code of a user's runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from docarray import BaseDoc, DocList
from opentelemetry import trace

from jina_asgi import Context, Executor, dynamic_batching, requests
from jina_asgi.errors import InvalidDocs


class Text(BaseDoc):
    text: str = ""


class Traced(Executor):
    """Opens spans of its own wherever code of a user's runs."""

    @requests(on="/sync")
    def sync(self, docs: DocList[Text], tracing_context: Any) -> DocList[Text]:
        with self.tracer.start_as_current_span("in sync", context=tracing_context):
            for doc in docs:
                doc.text = threading.current_thread().name
        return docs

    @requests(on="/async")
    async def asynchronous(self, docs: DocList[Text]) -> DocList[Text]:
        with self.tracer.start_as_current_span("in async"):
            await asyncio.sleep(0)
        return docs

    @requests(on="/fail")
    def fail(self, docs: DocList[Text]) -> DocList[Text]:
        raise ValueError(f"the secret is {docs[0].text}")

    @requests(on="/headers")
    def headers(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        for doc in docs:
            doc.text = context.headers.get("traceparent", "")
        return docs

    @requests(on="/slow")
    def slow(self, docs: DocList[Text]) -> DocList[Text]:
        time.sleep(float(docs[0].text))
        return docs

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        docs[0].text = "waits"
        await asyncio.Event().wait()
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Text) -> AsyncIterator[Text]:
        with self.tracer.start_as_current_span("around yields"):
            for number in range(3):
                with self.tracer.start_as_current_span(f"yield {number}"):
                    await asyncio.sleep(0)
                yield Text(text=f"{number}")

    @requests(on="/refuse")
    async def refuse(self, doc: Text) -> AsyncIterator[Text]:
        if doc.text:
            raise InvalidDocs("expected another text")
        yield doc

    @requests(on="/steps")
    def steps(self, doc: Text) -> Iterator[Text]:
        with self.tracer.start_as_current_span("around steps"):
            for number in range(3):
                with self.tracer.start_as_current_span(f"step {number}"):
                    pass
                yield Text(text=f"{number}")

    @requests(on="/global")
    def by_the_global_provider(self, docs: DocList[Text]) -> DocList[Text]:
        with trace.get_tracer("own").start_as_current_span("by the global provider"):
            return docs

    @requests(on="/whole")
    @dynamic_batching(preferred_batch_size=9, timeout=60_000, gather="window")
    def gathered(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/batch")
    @dynamic_batching(preferred_batch_size=4, timeout=10_000, flush_all=True)
    def batch(self, docs: DocList[Text]) -> DocList[Text]:
        with self.tracer.start_as_current_span("in batch"):
            return docs


class Plain(Executor):
    """Has one endpoint."""

    @requests(on="/async")
    async def asynchronous(self, docs: DocList[Text]) -> DocList[Text]:
        with self.tracer.start_as_current_span("in async"):
            await asyncio.sleep(0)
        return docs
