"""The Executor of `pooled`: no web worker may import this module."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from docarray import BaseDoc, DocList

from jina_asgi import Executor, dynamic_batching, requests
from tests.doubles.rig import note


class Job(BaseDoc):
    name: str = ""
    pause: float = 0.0
    pid: int = 0
    batch: int = 0


class Model(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        time.sleep(float(os.environ.get("POOLED_LOAD", "0")))
        version = Path(os.environ["POOLED_VERSION"]).read_text() if "POOLED_VERSION" in os.environ else ""
        note(f"loaded {version}{os.getpid()}")

    @requests(on="/run", idempotent=True)
    @dynamic_batching(preferred_batch_size=32)
    def run(self, docs: DocList[Job]) -> DocList[Job]:
        time.sleep(max(doc.pause for doc in docs))
        for doc in docs:
            doc.pid, doc.batch = os.getpid(), len(docs)
        return docs

    @requests(on="/once")
    def once(self, docs: DocList[Job]) -> DocList[Job]:
        note(f"began {docs[0].name}")
        time.sleep(docs[0].pause)
        return docs

    @requests(on="/sync_stream")
    def sync_stream(self, doc: Job) -> Iterator[Job]:
        note(f"began {doc.name}")
        while True:
            yield doc

    @requests(on="/stream")
    async def stream(self, doc: Job) -> AsyncIterator[Job]:
        try:
            for index in range(10_000):
                yield Job(name=f"{doc.name}{index}", pid=os.getpid())
                await asyncio.sleep(doc.pause)
        finally:
            note(f"closed {doc.name}")
