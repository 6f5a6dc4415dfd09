"""Executors before and after the shards of a Deployment: `uses_before` and `uses_after`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import (
    DefinitionError,
    Deployment,
    Executor,
    ExecutorError,
    Flow,
    InvalidDocs,
    Overloaded,
    ReplicaPool,
    dynamic_batching,
    requests,
)
from tests.doubles.flows import Doc


class Index(Executor):
    """Says which shard has seen a document."""

    @requests(on=["/go", "/search", "/shards"])
    def go(self, docs: DocList[Doc], docs_map: dict[str, Any]) -> DocList[Doc]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.seen.append(f"{self.runtime_args.shard_id} of {', '.join(docs_map)}")

    @requests(on="/results")
    def results(self, docs: DocList[Doc]) -> DocList[Doc]:
        return {"shard": self.runtime_args.shard_id}  # type: ignore[return-value]  # a dict is `__results__`

    @requests(on="/stream")
    async def stream(self, doc: Doc) -> AsyncIterator[Doc]:
        for number in range(3):
            yield Doc(text=f"{doc.text}{number}")


class Before(Executor):
    @requests(on=["/go", "/search", "/stream"])
    def go(self, docs: DocList[Doc], docs_map: dict[str, Any]) -> DocList[Doc]:  # type: ignore[return]  # changed in place
        for doc in docs:
            doc.seen.append(f"before, of {', '.join(docs_map)}")
            doc.text += "<"

    @requests(on="/results")
    def results(self, docs: DocList[Doc]) -> DocList[Doc]:
        return {"who": self.runtime_args.name}  # type: ignore[return-value]  # as above

    @requests(on="/elsewhere")
    def elsewhere(self, docs: DocList[Doc]) -> DocList[Doc]:
        return docs


class Best(Executor):
    """Tells what it was given by each shard."""

    @requests(on=["/go", "/search", "/stream"])
    def go(self, docs: DocList[Doc], docs_matrix: Any, docs_map: Any) -> DocList[Doc]:
        assert [doc for part in docs_matrix for doc in part] == list(docs)
        return DocList[Doc](
            [Doc(text=f"{name}: {doc.text}", seen=doc.seen) for name in docs_map for doc in docs_map[name]]
        )

    @requests(on="/results")
    def results(self, docs: DocList[Doc]) -> DocList[Doc]:
        return {"who": self.runtime_args.name}  # type: ignore[return-value]  # as above


class Failing(Executor):
    @requests(on="/go")
    def go(self, docs: DocList[Doc]) -> DocList[Doc]:
        raise ValueError("asked to fail")


class Other(BaseDoc):
    title: str


class OfOthers(Executor):
    @requests(on="/go")
    def go(self, docs: DocList[Other]) -> DocList[Other]:
        return docs


async def test_one_runs_before_the_shards_and_one_is_given_the_answers_of_all_of_them() -> None:
    async with Deployment(Index, name="index", shards=2, uses_before=Before, uses_after=Best) as dep:
        found = await dep.call("/search", [Doc(text="q", id="1")])
        assert [(doc.text, doc.seen) for doc in found] == [
            ("index/shard-0: q<", ["before, of gateway", "0 of index"]),
            ("index/shard-1: q<", ["before, of gateway", "1 of index"]),
        ]
        asked = [await dep.call("/go", [Doc(text="q")]) for _ in range(2)]  # which goes to one shard
        assert [[doc.text for doc in docs] for docs in asked] == [["index/shard-0: q<"], ["index/shard-1: q<"]]


async def test_an_endpoint_passes_by_those_that_do_not_have_it() -> None:
    async with Deployment(Index, shards=2, polling="ALL", uses_before=Before, uses_after=Best) as dep:
        assert sorted(dep.endpoints) == ["/go", "/results", "/search", "/shards", "/stream"]
        [found] = await dep.call("/shards", [Doc(text="q", id="1")])  # reduced, as without `uses_after`
        assert (found.text, found.seen) == ("q", ["0 of gateway", "1 of gateway"])


async def test_each_of_them_may_be_alone() -> None:
    async with Deployment(Index, shards=2, uses_before=Before) as dep:
        [found] = await dep.call("/search", [Doc(text="q", id="1")])
        assert found.text == "q<"
    async with Deployment(Index, name="index", shards=2, uses_after=Best) as dep:
        found = await dep.call("/search", [Doc(text="q", id="1")])
        assert [doc.text for doc in found] == ["index/shard-0: q", "index/shard-1: q"]


async def test_what_each_returns_as_a_dict_stands_below_its_own_name() -> None:
    async with Deployment(Index, name="index", shards=2, polling="ALL", uses_before=Before, uses_after=Best) as dep:
        result = await dep.run("/results", [Doc(text="q")])
    assert result.results == {
        "index/uses_before-0": {"who": "index-uses_before"},
        "index/shard-0/rep-0": {"shard": 0},
        "index/shard-1/rep-0": {"shard": 1},
        "index/uses_after-0": {"who": "index-uses_after"},
    }


async def test_each_document_of_a_stream_goes_to_the_one_after() -> None:
    async with Deployment(Index, name="index", shards=2, uses_before=Before, uses_after=Best) as dep:
        seen = [[doc.text async for doc in dep.stream("/stream", Doc(text="q"))] for _ in range(2)]
        assert seen == [[f"index/shard-{shard}: q<{number}" for number in range(3)] for shard in range(2)]
        with pytest.raises(InvalidDocs, match="streams"):
            await dep.call("/stream", [Doc(text="q")])


@pytest.mark.parametrize("part", ["uses_before", "uses_after"])
async def test_an_error_names_the_one_that_failed(part: str) -> None:
    options: Any = {part: Failing}
    async with Flow().add(uses=Index, name="index", shards=2, **options) as flow:
        with pytest.raises(ExecutorError, match="asked to fail") as raised:
            await flow.call("/go", [Doc(text="q")])
    assert (raised.value.executor, raised.value.node) == ("Failing", f"index/{part}")


async def test_a_full_queue_after_the_shards_refuses_before_anything_runs() -> None:
    async with Deployment(Index, shards=2, uses_after=Best, max_queue=1) as dep:
        ticket = dep.runner.admit("/go")
        with pytest.raises(Overloaded):
            dep.runner.admit("/go")
        ticket.close()
        dep.runner.admit("/go").close()
        assert dep.runner.status()["uses_after"]["queue"]["pending"] == 0


async def test_a_call_that_runs_ends_before_the_one_after_is_closed() -> None:
    begun, free, order = asyncio.Event(), asyncio.Event(), list[str]()

    class Slow(Executor):
        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            begun.set()
            await free.wait()
            return docs

    class Last(Executor):
        def warmup(self) -> None:
            order.append("warm")

        @requests(on="/go")
        def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            order.append("answered")
            return docs

        def close(self) -> None:
            order.append("closed")

    dep = Deployment(Slow, shards=2, uses_after=Last)
    async with dep:
        running = asyncio.create_task(dep.call("/go", [Doc(text="q")]))
        await begun.wait()
        asyncio.get_running_loop().call_soon(free.set)
    assert [doc.text for doc in await running] == ["q"]
    assert order == ["warm", "answered", "closed"]


async def test_one_that_fails_to_load_is_named() -> None:
    class Broken(Executor):
        def __init__(self, **kwargs: Any) -> None:
            raise OSError("no such model")

    with pytest.raises(OSError, match="no such model") as raised:
        async with Deployment(Index, shards=2, uses_before=Broken):
            pass
    assert "in the node 'uses_before'" in raised.value.__notes__


class Streams(Executor):
    @requests(on="/go")
    async def go(self, doc: Doc) -> AsyncIterator[Doc]:
        yield doc


class Batched(Executor):
    @requests(on="/go")
    @dynamic_batching(preferred_batch_size=8)
    def go(self, docs: DocList[Doc]) -> DocList[Doc]:
        return docs


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"uses_before": OfOthers}, "/go: index does not take what its uses_before gives: 'title' is a field of Other"),
        (
            {"uses_after": OfOthers},
            "/go: the uses_after of index does not take what its shards give: 'text' is a field",
        ),
        ({"uses_before": Streams}, "/go: the uses_before of index streams its answer"),
        ({"uses_after": Streams}, "/go: the uses_after of index streams its answer"),
        ({"uses_after": Batched}, "/go: the uses_after of index is given the answers of all shards of one call"),
        ({"uses_before": Before, "shards": 1}, "'uses_before' runs before or after several shards: expected shards=2"),
        ({"uses_after": Best, "external": True, "port": 1}, "'uses_after' is an option of the server at its host"),
        ({"uses_before": 5}, "'uses_before': expected an Executor class, its import path, or its YAML, got 5"),
        ({"uses_before": "jinaai+docker://jina-ai/Encoder"}, "uses_before='jinaai+docker://jina-ai/Encoder': expected"),
        ({"uses_after": "docker://image"}, "uses_after='docker://image': expected an import path"),
        ({"uses_after": dict}, "uses_after=<class 'dict'>: expected a class derived from jina_asgi.Executor"),
        ({"uses_after": {"jtype": "Deployment"}}, "expected an Executor, got a Deployment"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        Deployment(None if options.get("external") else Index, **{"name": "index", "shards": 2, **options})
    assert why in raised.value.message


async def test_batches_are_made_before_the_shards() -> None:
    async with Deployment(Index, shards=2, uses_before=Batched) as dep:
        found = await asyncio.gather(*(dep.call("/go", [Doc(text=text)]) for text in "ab"))
    assert [docs[0].text for docs in found] == ["a", "b"]


def test_a_flow_gives_none_to_all_its_nodes() -> None:
    with pytest.raises(DefinitionError, match="Flow has no option 'uses_before'"):
        Flow(uses_before=Before)


def test_a_pool_in_ones_own_process_has_none() -> None:
    with pytest.raises(DefinitionError, match="uses_before"):
        ReplicaPool(Index, uses_before=Before)


YAML = """jtype: Deployment
with:
  uses: tests.runners.flow.test_head.Index
  shards: 2
  polling: ALL
  uses_before: before.yml
  uses_after:
    jtype: tests.runners.flow.test_head.Best
"""


async def test_yaml_names_them_as_it_names_uses(tmp_path: Path) -> None:
    (tmp_path / "before.yml").write_text("jtype: tests.runners.flow.test_head.Before\n")
    (tmp_path / "deployment.yml").write_text(YAML)
    loaded = Deployment.load_config(str(tmp_path / "deployment.yml"))
    (tmp_path / "again.yml").write_text(loaded.save_config(tmp_path / "again.yml"))
    for dep in (
        loaded,
        Deployment.load_config(str(tmp_path / "again.yml")),
        Deployment(str(tmp_path / "deployment.yml")),
    ):
        async with dep:
            found = await dep.call("/go", [Doc(text="q", id="1")])
        assert [doc.text for doc in found] == ["executor/shard-0: q<", "executor/shard-1: q<"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("uses_before: [1]", "it.yml:4:5: Deployment's option 'uses_before': expected an Executor class"),
        ("uses_befor: x.Y", "it.yml:4:5: Deployment has no option 'uses_befor'; did you mean 'uses_before'?"),
        ("uses_before: {jtype: Before, wiht: {}}", "it.yml:4:34: unknown key 'wiht'; did you mean 'with'?"),
        ("uses_after: none.yml", "none.yml: No such file"),
        (
            "uses_after: jinaai+docker://jina-ai/Best",
            "it.yml:4:5: uses_after='jinaai+docker://jina-ai/Best': expected an import",
        ),
    ],
)
def test_what_is_wrong_in_yaml_is_said_with_its_place(line: str, why: str, tmp_path: Path) -> None:
    text = f"jtype: Flow\nexecutors:\n  - uses: tests.runners.flow.test_head.Index\n    {line}\n    shards: 2\n"
    (tmp_path / "it.yml").write_text(text)
    with pytest.raises(DefinitionError) as raised:
        Flow.load_config(str(tmp_path / "it.yml"))
    assert why in raised.value.message
    assert "it.yml:" in raised.value.message
