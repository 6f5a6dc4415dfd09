"""A Flow whose nodes live in processes of their own: their classes are not at hand where it runs."""

from __future__ import annotations

from typing import Any

import pytest

from jina_asgi import DefinitionError, Deployment, Flow, JinaASGI, NotReady, ReplicaPool
from jina_asgi.testing import client
from tests.doubles.flows import Doc, Mark

pytestmark = pytest.mark.processes


def pool(name: str, uses: str = "tests.doubles.flows.Mark") -> ReplicaPool:
    return ReplicaPool(uses, name=name)


async def test_nodes_in_processes_and_nodes_here_follow_one_another() -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=pool("p")).add(uses=Mark, name="z")
    with pytest.raises(NotReady):
        _ = flow.endpoints
    async with flow:
        [doc] = await flow.call("/go", [Doc(text="x", id="1")])
        assert (type(doc), doc.id, doc.text) == (Doc, "1", "xapz")


async def test_branches_in_processes_join_a_document_that_came_without_an_id() -> None:
    flow = Flow().add(uses=pool("p"), needs="gateway").add(uses=pool("q"), needs="gateway").needs(["p", "q"])
    async with client(JinaASGI(flow, wait_ready=True)) as http:
        answer = await http.post("/go", json={"data": {"text": "x"}})
    assert [(doc["text"], doc["seen"]) for doc in answer.json()["data"]] == [("xq", ["p", "q"])]


async def test_a_stream_passes_from_process_to_process() -> None:
    flow = Flow().add(uses=pool("g", "tests.doubles.flows.Tokens")).add(uses=pool("q"))
    async with flow:
        assert [doc["text"] async for doc in flow.stream("/go", {"text": "xy"})] == ["xq", "yq"]


async def test_neighbours_are_compared_once_they_have_said_what_they_serve() -> None:
    flow = Flow().add(uses=pool("p")).add(uses=pool("probe", "jina_asgi.testing.executors.Probe"))
    with pytest.raises(
        DefinitionError, match="/parameters: 'probe' does not take what 'p' gives: 'n' is a field of Doc"
    ):
        async with flow:
            pass


async def test_a_join_in_a_process_is_given_its_parts() -> None:
    flow = Flow().add(uses=Mark, name="a", needs="gateway").add(uses=Mark, name="b", needs="gateway")
    async with flow.add(uses=pool("j", "tests.doubles.flows.Joined"), needs=["a", "b"], no_reduce=True) as flow:
        results = (await flow.run("/go", [{"text": "x"}])).results
    assert results["j/rep-0"]["map"] == {"a": ["xa"], "b": ["xb"]}


async def test_every_shard_may_have_processes_of_its_own() -> None:
    async with Deployment("tests.doubles.flows.Mark", name="s", shards=2, polling="ALL", replicas=1) as dep:
        [doc] = await dep.call("/go", {"text": "x"})
        assert doc["seen"] == ["s-shard-0", "s-shard-1"]
        results = (await dep.run("/parameters", {"text": "x"})).results
    assert results.keys() == {"s/shard-0/rep-0", "s/shard-1/rep-0"}


@pytest.mark.parametrize("options", [{}, {"placement": "pool"}, {"replicas": 2}], ids=["here", "pool", "replicas"])
async def test_executors_around_shards_run_where_the_shards_do(options: Any) -> None:
    index, joined = "tests.doubles.flows.Mark", "tests.doubles.flows.Joined"
    around: Any = {"uses_before": index, "uses_after": {"jtype": joined}}
    async with Deployment(index, name="s", shards=2, polling="ALL", **around, **options) as dep:
        result = await dep.run("/go", {"text": "x"})
        results = (await dep.run("/parameters", {"text": "x"})).results
        status = dep.runner.status()
    name, docs = "s/uses_after-0", [f"xs-uses_befores-shard-{number}" for number in range(2)]
    parts = {f"s/shard-{number}": [f"xs-uses_befores-shard-{number}"] for number in range(2)}
    assert result.results == {name: {"docs": docs, "matrix": [*parts.values()], "map": parts}}
    assert [key.partition("/rep-")[0] for key in results] == ["s/uses_before-0", "s/shard-0", "s/shard-1"]
    assert {"shards", "uses_before", "uses_after"} <= status.keys()


async def test_the_one_node_before_is_named_across_processes() -> None:
    async with Flow().add(uses=pool("p")).add(uses=pool("j", "tests.doubles.flows.Joined")) as flow:
        results = (await flow.run("/go", [{"text": "x"}])).results
    assert results["j/rep-0"]["map"] == {"p": ["xp"]}
