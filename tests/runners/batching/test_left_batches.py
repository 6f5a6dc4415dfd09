"""Callers of batched endpoints that fail or leave: whatever they do, the next caller is answered."""

from __future__ import annotations

import asyncio
import random

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, dynamic_batching, requests
from jina_asgi.errors import ExecutorError


class Text(BaseDoc):
    text: str


class Refuser(Executor):
    @dynamic_batching(preferred_batch_size=4)
    @requests(on="/refuse")
    def refuse(self, docs: DocList[Text]) -> DocList[Text]:
        if "bad" in docs.text:
            raise ValueError("a bad document")
        return docs


class Waiter(Executor):
    @dynamic_batching(preferred_batch_size=4)
    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.sleep(0.004)
        return docs


def texts(count: int) -> DocList[Text]:
    return DocList[Text](Text(text="good") for _ in range(count))


@pytest.mark.parametrize("place", range(9))
async def test_a_bad_document_among_several_batches_of_one_call_leaves_the_endpoint_to_others(place: int) -> None:
    async with Deployment(uses=Refuser) as deployment:
        docs = texts(9)
        docs[place].text = "bad"
        with pytest.raises(ExecutorError):
            await deployment.call("/refuse", docs)
        answer = await asyncio.wait_for(deployment.call("/refuse", texts(1)), 5)
        assert [doc.text for doc in answer] == ["good"]


@pytest.mark.parametrize("seed", range(3))
async def test_after_crowds_of_callers_that_left_a_batched_endpoint_answers(seed: int) -> None:
    chance = random.Random(seed)
    async with Deployment(uses=Waiter) as deployment:
        for _crowd in range(40):
            calls = []
            for _ in range(chance.randint(2, 40)):
                calls.append(asyncio.ensure_future(deployment.call("/wait", texts(1))))
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003)))
            chance.shuffle(calls)
            for call in calls:
                call.cancel()
            answer = await asyncio.wait_for(deployment.call("/wait", texts(1)), 5)
            assert [doc.text for doc in answer] == ["good"]
