"""`prefetch`: an asynchronous endpoint has the next full batch beside the one it runs, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, dynamic_batching, requests


class Number(BaseDoc):
    value: int


class Stages(Executor):
    """Prepares whenever it is called; computes a batch at a time, once it is let."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prepared: list[int] = []
        self.computing, self.let = asyncio.Lock(), asyncio.Event()

    @dynamic_batching(preferred_batch_size=4)
    @requests(on="/run")
    async def run(self, docs: DocList[Number]) -> DocList[Number]:
        self.prepared.append(len(docs))
        async with self.computing:
            await self.let.wait()
            return docs


@pytest.mark.parametrize(
    ("prefetch", "count", "before"),
    [(0, 12, [4]), (1, 12, [4, 4]), (2, 12, [4, 4, 4]), (1, 6, [4]), (1, 8, [4, 4])],
)
async def test_full_batches_are_prepared_while_one_is_computed(prefetch: int, count: int, before: list[int]) -> None:
    made: list[Stages] = []

    class Kept(Stages):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            made.append(self)

    async with Deployment(uses=Kept, uses_dynamic_batching={"/run": {"prefetch": prefetch}}) as deployment:
        asked = asyncio.create_task(deployment.call("/run", [Number(value=value) for value in range(count)]))
        [stages] = made
        for _ in range(20):
            await asyncio.sleep(0)  # whatever is to begin has begun
        assert stages.prepared == before
        stages.let.set()
        found = await asked
    assert [doc.value for doc in found] == list(range(count))
    assert sum(stages.prepared) == count
