"""Shards: which of them a call goes to, and what becomes of their answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from docarray import DocList

from jina_asgi import DefinitionError, Deployment, Executor, ExecutorError, Flow, Overloaded, ReplicaPool, requests
from tests.doubles.flows import Doc


class Index(Executor):
    """Keeps what it is given, and finds all of it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept: list[Doc] = []

    @requests(on="/index")
    def index(self, docs: DocList[Doc]) -> DocList[Doc]:
        self.kept.extend(docs)
        return {"shard": self.runtime_args.shard_id, "of": self.runtime_args.shards}  # type: ignore[return-value]

    @requests(on="/search")
    def search(self, docs: DocList[Doc]) -> DocList[Doc]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.seen.extend(sorted(kept.text for kept in self.kept))

    @requests(on="/all")
    def all(self, docs: DocList[Doc]) -> DocList[Doc]:
        return DocList[Doc](self.kept)

    @requests(on="/fail")
    async def fail(self, docs: DocList[Doc]) -> DocList[Doc]:
        if self.runtime_args.shard_id == 1:
            raise ValueError("asked to fail")
        await asyncio.Event().wait()
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Doc):  # type: ignore[no-untyped-def]  # a generator
        yield Doc(text=str(self.runtime_args.shard_id))


async def indexed(dep: Deployment | Flow, *texts: str) -> list[Any]:
    return [(await dep.run("/index", [Doc(text=text)])).results for text in texts]


async def test_a_call_goes_to_the_next_shard_in_turn_and_a_search_to_all() -> None:
    async with Deployment(Index, name="index", shards=3) as dep:
        assert await indexed(dep, "a", "b", "c", "d") == [
            {f"index/shard-{shard}/rep-0": {"shard": shard, "of": 3}} for shard in (0, 1, 2, 0)
        ]
        [found] = await dep.call("/search", [Doc(text="q", id="1")])
        assert (found.text, found.seen) == ("q", ["a", "d", "b", "c"])


@pytest.mark.parametrize("polling", [{"/all": "ALL"}, {"*": "all"}, '{"/all": "ALL"}', "ALL"])
async def test_polling_says_which_endpoints_go_to_all(polling) -> None:
    async with Deployment(Index, shards=2, polling=polling) as dep:
        await dep.call("/index", [Doc(text="a")])
        await dep.call("/index", [Doc(text="b")])
        found = await dep.call("/all", [Doc(text="q")])
        assert sorted(doc.text for doc in found) == ["a", "b"]


async def test_answers_that_are_not_reduced_come_one_after_another() -> None:
    async with Deployment(Index, shards=2, no_reduce=True) as dep:
        await indexed(dep, "a", "b")
        found = await dep.call("/search", [Doc(text="q", id="1")])
    assert [(doc.id, doc.seen) for doc in found] == [("1", ["a"]), ("1", ["b"])]


async def test_the_first_shard_that_fails_ends_the_others() -> None:
    async with Deployment(Index, shards=3, polling="ALL") as dep:
        with pytest.raises(ExecutorError, match="asked to fail"):
            await asyncio.wait_for(dep.call("/fail", [Doc(text="q")]), 10)


async def test_a_stream_comes_from_one_shard() -> None:
    async with Deployment(Index, shards=2, polling="ALL") as dep:
        seen = [[doc.text async for doc in dep.stream("/stream", Doc(text="q"))] for _ in range(3)]
    assert seen == [["0"], ["1"], ["0"]]


async def test_the_queue_is_one_for_all_shards() -> None:
    async with Deployment(Index, shards=2, max_queue=1) as dep:
        ticket = dep.runner.admit("/index")
        with pytest.raises(Overloaded):
            dep.runner.admit("/index")
        ticket.close()
        assert dep.runner.status()["queue"]["rejected"] == {"calls": 1, "bytes": 0}


async def test_a_node_of_a_flow_may_have_shards(tmp_path) -> None:
    async with Flow(workspace=str(tmp_path)).add(uses=Index, name="index", shards=2) as flow:
        assert await indexed(flow, "a", "b") == [
            {f"index/shard-{shard}/rep-0": {"shard": shard, "of": 2}} for shard in (0, 1)
        ]
        [found] = await flow.call("/search", [Doc(text="q")])
        assert found.seen == ["a", "b"]


@pytest.mark.parametrize("polling", ["SOME", {"/x": "BOTH"}, "{", 3])
def test_polling_is_any_or_all(polling) -> None:
    with pytest.raises(DefinitionError, match="polling"):
        Deployment(Index, shards=2, polling=polling)


def test_a_pool_in_ones_own_process_has_no_shards() -> None:
    with pytest.raises(DefinitionError, match="a ReplicaPool has no shards"):
        ReplicaPool(Index, shards=2)
