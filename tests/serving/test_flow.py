"""The Flow object: how it is written, what it refuses, and that it is served and mounted like a Deployment."""

from __future__ import annotations

import re

import pytest
from docarray import BaseDoc, DocList
from starlette.applications import Starlette

from jina_asgi import DefinitionError, Deployment, Executor, Flow, JinaASGI, dynamic_batching, mount, requests
from jina_asgi.testing import client
from tests.doubles.flows import Doc, Joined, Mark, Tokens


class Other(BaseDoc):
    number: int


class Numbers(Executor):
    @requests(on="/go")
    async def go(self, docs: DocList[Other]) -> DocList[Other]:
        return docs


class Batched(Executor):
    @dynamic_batching(preferred_batch_size=4)
    @requests(on="/go")
    async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
        return docs


def test_add_gives_another_flow_and_leaves_this_one() -> None:
    flow = Flow()
    longer = flow.add(uses=Mark)
    assert (len(flow), len(longer), longer.num_deployments) == (0, 1, 1)
    assert flow.add(uses=Mark, copy_flow=False) is flow
    assert len(flow) == 1


def test_nodes_are_named_in_turn_and_found_by_name() -> None:
    named = Deployment(Mark, name="mine")
    flow = Flow().add(uses=Mark).add(uses=Mark, name="b").add(uses=named).add(uses=Deployment(Mark)).needs_all()
    assert list(flow.graph.nodes) == ["executor0", "b", "mine", "executor3", "joiner"]
    assert flow["mine"] is named
    assert flow["b"].name == "b"
    with pytest.raises(KeyError, match="did you mean 'mine'"):
        flow["mines"]
    with pytest.raises(KeyError):
        flow["joiner"]


def test_an_executor_may_be_named_by_its_import_path_or_its_yaml(tmp_path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("jtype: tests.doubles.flows.Mark\nwith:\n  mark: from the file\n")
    flow = Flow().add(uses="tests.doubles.flows.Mark", name="a").add(uses=str(config), name="b")
    assert list(flow.endpoints) == ["/go", "/parameters"]


def test_what_a_node_is_not_given_is_the_flows() -> None:
    flow = Flow(name="mine", max_queue=7, grace=3.0).add(uses=Mark).add(uses=Mark, max_queue=8, name="b")
    first, second = flow["executor0"], flow["b"]
    assert isinstance(first, Deployment)
    assert isinstance(second, Deployment)
    assert (first.settings.max_queue, first.settings.grace, first.name) == (7, 3.0, "executor0")
    assert (second.settings.max_queue, second.settings.grace) == (8, 3.0)
    assert (flow.name, flow.grace) == ("mine", 3.0)


def test_the_longest_grace_of_the_nodes_is_the_flows() -> None:
    inner = Flow().add(uses=Mark, grace=2.0).add(uses=Mark, grace=1.0)
    assert Flow().add(uses=inner).grace == 2.0


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: Flow(max_queu=3), "Flow has no option 'max_queu'; did you mean 'max_queue'?"),  # type: ignore[call-arg]
        (lambda: Flow(uses_with={}), "Flow has no option 'uses_with'; give it to the node"),
        (lambda: Flow(grace="long"), "Flow's option 'grace'"),  # type: ignore[arg-type]
        (lambda: Flow().add(uses=Mark, gracee=3), "Deployment has no option 'gracee'; did you mean"),  # type: ignore[call-arg]
        (lambda: Flow().add(uses=Deployment(Mark), grace=3), "a Deployment takes no option 'grace'"),
        (lambda: Flow().add(uses=Flow(), grace=3), "a Flow takes no option 'grace'"),
        (lambda: Flow().add(grace=3), "a node that joins takes no option 'grace'"),
        (lambda: Flow().add(uses=Doc), "expected a class derived from"),  # type: ignore[arg-type]
        (lambda: Flow().add(when={"n": {"$eq": 1}}), "a node without `uses` passes all documents on"),
        (lambda: Flow().add(uses=Mark, name="a").add(uses=Mark, name="a"), "two nodes are named 'a'"),
        (lambda: Flow().add(uses=Mark, name="gateway"), "'gateway', which stands for the request"),
        (lambda: Flow().add(uses=Mark, name="a-b"), "'a-b': expected a valid identifier"),
        (lambda: Flow().add(uses=Mark, name="abc").add(uses=Mark, needs="abd"), "did you mean 'abc'?"),
        (lambda: Flow().add(uses=Mark, name="a", needs="a"), "'a' needs itself"),
        (lambda: Flow().add(uses=Mark, name="a").needs(["a"]), "expected two names or more"),
        (lambda: Flow().add(uses=Mark, when={"n": {"$gtr": 1}}), "has no operator '$gtr'; did you mean '$gt'?"),
        (lambda: Flow().add(uses=Mark).add(uses=Numbers), "/go: 'executor1' does not take what 'executor0' gives"),
        (
            lambda: (
                Flow()
                .add(uses=Mark, name="a", needs="gateway")
                .add(uses=Mark, name="b", needs="gateway")
                .add(uses=Batched, needs=["a", "b"], no_reduce=True)
            ),
            "/go is batched, which needs merged documents",
        ),
    ],
)
def test_what_is_written_wrong_is_refused_where_it_is_written(write, message) -> None:
    with pytest.raises(DefinitionError) as raised:
        write()
    assert message in str(raised.value)


def test_a_flow_that_refused_a_node_is_as_it_was() -> None:
    flow = Flow().add(uses=Mark, name="a")
    with pytest.raises(DefinitionError):
        flow.add(uses=Numbers, copy_flow=False)
    assert list(flow.graph.nodes) == ["a"]


async def test_it_is_called_streamed_and_entered_like_a_deployment() -> None:
    async with Flow().add(uses=Mark, name="a").add(uses=Tokens, name="g") as flow:
        assert [doc.text async for doc in flow.stream("/go", {"text": "x"})] == ["x", "a"]
        assert (await flow.run("parameters", {"text": "x"}, {"p": 1})).results == {"a/rep-0": {"saw": {"p": 1}}}
    async with flow.lifespan():
        assert [doc.text for doc in await flow.call("/parameters", {"text": "x"})] == ["x"]


async def test_a_flow_may_be_a_node_of_another() -> None:
    inner = Flow().add(uses=Mark, name="a").add(uses=Mark, name="b", needs="gateway").needs(["a", "b"])
    flow = Flow().add(uses=inner, name="inner").add(uses=Mark, name="after")
    async with flow:
        result = await flow.run("/go", [Doc(text="x")])
        assert [doc.text for doc in result.docs.typed] == ["xbafter"]
        assert [step.name for step in result.trail][-3:] == ["inner", "after", "flow"]
        nested = await flow.run("/parameters", [Doc(text="x")], {"inner": {"a__p": 1}, "after__p": 2})
    assert nested.results == {"a/rep-0": {"saw": {"p": 1}}, "b/rep-0": {"saw": {}}, "after/rep-0": {"saw": {"p": 2}}}


async def test_one_deployment_may_be_two_nodes_and_answers_by_their_names() -> None:
    shared = Deployment(Mark, uses_with={"mark": "!"})
    async with Flow().add(uses=shared, name="a").add(uses=shared, name="b") as flow:
        result = await flow.run("/go", [Doc(text="x")])
        assert [doc.text for doc in result.docs.typed] == ["x!!"]
        assert [step.name for step in result.trail] == ["a", "b", "flow"]
        assert (await flow.run("/parameters", [Doc(text="x")])).results.keys() == {"a/rep-0", "b/rep-0"}


def test_the_plot_is_mermaids_text() -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=Mark, name="b", needs="a", when={"n": {"$gt": 1}})
    flow = flow.add(uses="tests.doubles.flows.Joined", name="c", needs=["a", "b"]).add(name="log", floating=True)
    assert flow.plot() == (
        "flowchart LR\n"
        "    gateway([gateway])\n"
        "    answer([answer])\n"
        '    node_a["a<br/>Mark"]\n'
        '    node_b["b<br/>Mark"]\n'
        '    node_c["c<br/>tests.doubles.flows.Joined"]\n'
        '    node_log["log<br/>joins"]\n'
        "    gateway --> node_a\n"
        "    node_a -.-> node_b\n"
        "    node_a --> node_c\n"
        "    node_b --> node_c\n"
        "    node_c -.-> node_log\n"
        "    node_c --> answer\n"
    )


async def test_a_flow_is_an_asgi_application() -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=Mark, name="b")
    async with client(JinaASGI(flow, wait_ready=True)) as http:
        answer = await http.post("/go", json={"data": [{"text": "x"}]})
        assert answer.json()["data"][0]["text"] == "xab"
        figures = (await http.get("/-/status")).json()["deployments"]["flow"]
        assert figures["nodes"].keys() == {"a", "b"}
        assert figures["nodes"]["a"]["calls"] == 1
        assert (await http.get("/-/ready")).status_code == 200
        targeted = {"data": [{"text": "x"}], "header": {"request_id": "1", "target_executor": "b"}}
        assert (await http.post("/go", json=targeted)).json()["data"][0]["text"] == "xb"
        slow = {**targeted, "header": {"request_id": "1", "target_executor": "(a+)+$"}}
        assert (await http.post("/go", json=slow)).status_code == 400


async def test_a_flow_that_streams_sends_events_below_a_mount() -> None:
    app = Starlette()
    mount(app, "/lm", Flow().add(uses=Tokens).add(uses=Mark, name="b"), wait_ready=True)
    async with client(app) as http:
        answer = await http.post("/lm/go", json={"data": {"text": "xy"}})
    assert re.findall(r'"text":"(\w+)"', answer.text) == ["xb", "yb"]
    assert answer.content.endswith(b"event: end\r\ndata: null\r\n\r\n")


def test_a_join_that_is_given_its_parts_is_drawn_and_counted_like_others() -> None:
    flow = Flow().add(uses=Mark, name="a", needs="gateway").add(uses=Mark, name="b", needs="gateway")
    assert len(flow.needs_all(uses=Joined, no_reduce=True)) == 3
