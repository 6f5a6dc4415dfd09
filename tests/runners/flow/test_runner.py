"""What a Flow does with documents: forks, joins, conditions, parameters, errors, deadlines, and what floats."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi import Context, DeadlineExceeded, Deployment, Executor, ExecutorError, Flow, Overloaded, requests
from tests.doubles.flows import Doc, Fail, Joined, Mark, Wait, executor


def doc(text: str = "x", **fields: Any) -> Doc:
    return Doc(text=text, **fields)


def texts(docs: Any) -> list[str]:
    return [doc.text for doc in docs]


async def test_a_chain_passes_the_objects_themselves() -> None:
    sent = doc()
    async with Flow().add(uses=Mark, name="a").add(uses=Mark, name="b") as flow:
        [answer] = await flow.call("/go", [sent])
    assert answer is sent
    assert sent.text == "xab"


async def test_at_a_fork_each_branch_has_documents_of_its_own() -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=Mark, name="b", needs="a").add(uses=Mark, name="c", needs="a")
    async with flow.add(uses=Joined, needs=["b", "c"], no_reduce=True, name="d") as flow:
        results = (await flow.run("/go", [doc()])).results
    assert results["d/rep-0"]["map"] == {"b": ["xab"], "c": ["xac"]}


async def test_a_branch_that_does_not_change_its_documents_may_share_them() -> None:
    class Look(Executor):
        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            looked.append(docs[0])
            return docs

    looked: list[Doc] = []
    sent = doc()
    flow = Flow().add(uses=Look, name="a", needs="gateway", copy=False).add(uses=Look, name="b", needs="gateway")
    async with flow.needs(["a", "b"]) as flow:
        await flow.call("/go", [sent])
    assert looked[0] is sent
    assert looked[1] is sent


async def test_where_branches_join_documents_of_one_id_become_one() -> None:
    flow = Flow().add(uses=Mark, name="b", needs="gateway").add(uses=Mark, name="c", needs="gateway")
    async with flow.needs(["b", "c"]) as flow:
        answer = await flow.call("/go", [doc("x", id="1"), doc("y", id="2")])
    assert [(d.id, d.text, d.seen) for d in answer] == [("1", "xc", ["b", "c"]), ("2", "yc", ["b", "c"])]


class Plain(BaseModel):
    text: str


class Name(Executor):
    """Answers one plain document, without an id, for every one it is given; or more."""

    def __init__(self, more: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.more = more

    @requests(on="/go")
    async def go(self, docs: list[Plain]) -> list[Plain]:
        return [Plain(text=d.text + self.runtime_args.name) for d in docs] + [Plain(text="more")] * self.more


async def test_documents_without_an_id_are_joined_by_position() -> None:
    flow = Flow().add(uses=Name, name="b", needs="gateway").add(uses=Name, name="c", needs="gateway")
    async with flow.needs(["b", "c"]) as flow:
        assert texts(await flow.call("/go", [Plain(text="x"), Plain(text="y")])) == ["xc", "yc"]


async def test_by_position_both_branches_give_as_many() -> None:
    flow = Flow().add(uses=Name, name="b", needs="gateway")
    flow = flow.add(uses=Name, name="c", needs="gateway", uses_with={"more": 2}).needs(["b", "c"], name="d")
    async with flow:
        with pytest.raises(ExecutorError, match=r"'d' joins .* expected as many from 'b' as from 'c', got 1 and 3"):
            await flow.call("/go", [Plain(text="x")])


async def test_a_node_may_be_given_what_its_needs_gave_apart() -> None:
    flow = Flow().add(uses=Mark, name="b", needs="gateway").add(uses=Mark, name="c", needs="gateway")
    async with flow.add(uses=Joined, name="d", needs=["c", "b"], no_reduce=True) as flow:
        results = (await flow.run("/go", [doc()])).results
    assert results == {"d/rep-0": {"docs": ["xc", "xb"], "matrix": [["xc"], ["xb"]], "map": {"c": ["xc"], "b": ["xb"]}}}


async def test_only_documents_that_match_go_to_a_node_and_the_answer_has_the_requests_order() -> None:
    flow = Flow().add(uses=Mark, name="even", needs="gateway", when={"n": {"$in": [0, 2]}})
    flow = flow.add(uses=Mark, name="odd", needs="gateway", when={"n": {"$eq": 1}}).needs_all()
    async with flow:
        answer = await flow.call("/go", [doc(str(n), n=n) for n in range(3)])
    assert texts(answer) == ["0even", "1odd", "2even"]


async def test_new_documents_come_last_where_a_node_has_a_condition() -> None:
    class New(Executor):
        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            return DocList[Doc]([Doc(text="new"), *reversed(docs)])

    async with Flow().add(uses=New).add(uses=Mark, name="m", when={"text": {"$exists": True}}) as flow:
        assert texts(await flow.call("/go", [doc("a"), doc("b")])) == ["am", "bm", "newm"]


async def test_a_node_whose_condition_no_document_meets_is_not_called() -> None:
    """FL-08: also where the field is missing; a request that is empty of itself is answered."""
    flow = Flow().add(uses=Mark, name="a", needs="gateway", when={"nothing__here": {"$eq": 1}})
    flow = flow.add(uses=Mark, name="b", needs="gateway").needs(["a", "b"])
    async with flow:
        assert texts(await flow.call("/go", [doc()])) == ["xb"]
        assert executor(flow, "a").calls == []
        assert texts(await flow.call("/go", [])) == []
        assert executor(flow, "b").calls == [["x"], []]


async def test_a_node_without_the_endpoint_hands_on_what_it_is_given() -> None:
    class Other(Executor):
        @requests(on="/other")
        async def other(self, docs: DocList[Doc]) -> DocList[Doc]:
            return docs

    async with Flow().add(uses=Other, name="a").add(uses=Mark, name="b").add(uses=Other, name="c") as flow:
        result = await flow.run("/go", [doc()])
        assert texts(result.docs.typed) == ["xb"]
        assert [step.name for step in result.trail] == ["b", "flow"]
        assert list(flow.endpoints) == ["/other", "/go", "/parameters"]


async def test_target_executor_says_which_nodes_answer() -> None:
    async with Flow().add(uses=Mark, name="a1").add(uses=Mark, name="b").add(uses=Mark, name="a2") as flow:
        for pattern, text in (("a", "xa1a2"), ("b", "xb"), ("zzz", "x"), ("a1|b", "xa1b"), ("", "xa1ba2")):
            assert texts((await flow.run("/go", [doc()], target_executor=pattern)).docs.typed) == [text]


async def test_a_node_sees_the_parameters_for_all_and_its_own() -> None:
    given = {"a": 1, "exec1__b": 2, "zz__c": 3, "exec2": {"d": 4}}
    async with Flow().add(uses=Mark, name="exec1").add(uses=Mark, name="exec2") as flow:
        results = (await flow.run("/parameters", [doc()], given)).results
    assert results == {"exec1/rep-0": {"saw": {"a": 1, "b": 2}}, "exec2/rep-0": {"saw": {"a": 1, "d": 4}}}


async def test_the_trail_has_a_step_a_node() -> None:
    async with Flow().add(uses=Mark, name="a").add(uses=Mark, name="b").add(name="hands_on") as flow:
        trail = (await flow.run("/go", [doc()])).trail
    assert [step.name for step in trail] == ["a", "b", "flow"]
    assert trail[0].start <= trail[0].end <= trail[1].start <= trail[1].end
    assert {step.error for step in trail} == {None}


async def test_branches_run_at_the_same_time() -> None:
    """Each waits until the other has begun."""

    class Meet(Executor):
        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            await asyncio.wait_for(both.wait(), 10)
            return docs

    both = asyncio.Barrier(2)
    flow = Flow().add(uses=Meet, name="b", needs="gateway").add(uses=Meet, name="c", needs="gateway")
    async with flow.needs(["b", "c"]) as flow:
        assert texts(await flow.call("/go", [doc()])) == ["x"]


async def test_the_first_error_cancels_the_other_branches_and_leaves_as_itself() -> None:
    """FL-01."""

    class FailLater(Executor):
        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            await executor(flow, "slow").begun.wait()
            raise ValueError("asked to fail")

    flow = Flow().add(uses=Wait, name="slow", needs="gateway").add(uses=FailLater, name="bad", needs="gateway")
    async with flow.needs(["slow", "bad"]).add(uses=Mark, name="last") as flow:
        with pytest.raises(ExecutorError, match=r"FailLater\.go raised ValueError") as raised:
            await flow.call("/go", [doc()])
        assert raised.value.node == "bad"
        assert raised.value.__notes__ == ["in the node 'bad'"]
        assert executor(flow, "slow").ended == ["cancelled"]
        assert executor(flow, "last").calls == []


async def test_a_node_within_a_node_is_named_with_both() -> None:
    async with Flow().add(uses=Flow().add(uses=Fail, name="bad"), name="outer") as flow:
        with pytest.raises(ExecutorError) as raised:
            await flow.call("/go", [doc()])
    assert raised.value.node == "outer/bad"


async def test_a_deadline_holds_for_the_whole_way() -> None:
    """FL-04: what comes after it is never called."""

    class Slow(Executor):
        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            called.append(self.runtime_args.name)
            await asyncio.sleep(0.2)
            return docs

    called: list[str] = []
    async with Flow().add(uses=Slow, name="a").add(uses=Slow, name="b").add(uses=Slow, name="c") as flow:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await flow.call("/go", [doc()], context=Context(deadline=started + 0.3))
        assert time.monotonic() - started < 1.3
    assert called in (["a"], ["a", "b"])  # which of them it passes at is the machine's word


@pytest.mark.parametrize("node", ["a", "b", "c", "d"])
async def test_cancelling_reaches_whichever_node_runs(node) -> None:
    """FL-07: a diamond, cancelled at each of its nodes; nothing after it runs, and the next call is answered."""
    uses = {name: Wait if name == node else Mark for name in "abcd"}
    flow = Flow().add(uses=uses["a"], name="a").add(uses=uses["b"], name="b", needs="a")
    flow = flow.add(uses=uses["c"], name="c", needs="a").add(uses=uses["d"], name="d", needs=["b", "c"])
    async with flow:
        waiting = executor(flow, node)
        task = asyncio.ensure_future(flow.call("/go", [doc()]))
        await waiting.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting.ended == ["cancelled"]
        if node != "d":
            assert executor(flow, "d").calls == []
        waiting.free.set()
        await flow.call("/go", [doc()])


async def test_what_floats_is_not_waited_for_and_ends_before_the_flow_does() -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=Wait, name="log", floating=True).add(uses=Mark, name="b")
    async with flow:
        assert texts(await flow.call("/go", [doc()], context=Context(deadline=time.monotonic() + 60))) == ["xab"]
        log = executor(flow, "log")
        await log.begun.wait()
        assert log.ended == []
        log.free.set()
    assert log.ended == ["done"]


async def test_what_floats_leaves_no_trace_in_the_answer() -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=Mark, name="log", floating=True)
    async with flow:
        result = await flow.run("/parameters", [doc()])
    assert result.results.keys() == {"a/rep-0"}
    assert [step.name for step in result.trail] == ["a", "flow"]


async def test_documents_of_a_request_come_back_where_every_node_floats() -> None:
    sent = doc()
    async with Flow().add(uses=Mark, name="log", floating=True) as flow:
        assert await flow.call("/go", [sent]) == [sent]
        await asyncio.sleep(0)
    assert sent.text == "x"


async def test_a_leaf_that_nothing_joins_floats_as_in_jina(caplog) -> None:
    flow = Flow().add(uses=Mark, name="a", needs="gateway").add(uses=Mark, name="b", needs="gateway")
    async with flow:
        result = await flow.run("/go", [doc()])
        ran = executor(flow, "a").calls
    assert texts(result.docs.typed) == ["xb"]
    assert ran == [["x"]]
    assert "'a' is a leaf that nothing joins" in caplog.text


async def test_what_floats_and_fails_is_logged_and_counted(caplog) -> None:
    async with Flow().add(uses=Mark, name="a").add(uses=Fail, name="log", floating=True) as flow:
        assert texts(await flow.call("/go", [doc()])) == ["xa"]
    assert "log floats, and failed" in caplog.text
    assert flow.runner.status()["floating"] == {"running": 0, "dropped": {}, "failed": {"log": 1}}


async def test_what_floats_is_bounded_by_the_queue_of_its_node(caplog) -> None:
    flow = Flow().add(uses=Mark, name="a").add(uses=Wait, name="log", floating=True, max_queue=1)
    async with flow:
        for _ in range(3):
            await flow.call("/go", [doc()])
        assert flow.runner.status()["floating"] == {"running": 1, "dropped": {"log": 2}, "failed": {}}
        await executor(flow, "log").begun.wait()
        executor(flow, "log").free.set()
    assert "was not run" in caplog.text


async def test_a_node_that_is_full_refuses_before_anything_runs() -> None:
    async with Flow().add(uses=Mark, name="a").add(uses=Wait, name="b", max_queue=1) as flow:
        task = asyncio.ensure_future(flow.call("/go", [doc()]))
        await executor(flow, "b").begun.wait()
        with pytest.raises(Overloaded):
            await flow.call("/go", [doc("late")])
        assert executor(flow, "a").calls == [["x"]]
        assert flow["a"].runner.status()["queue"]["pending"] == 1  # the place of the refused was given back
        executor(flow, "b").free.set()
        await task
        assert flow["a"].runner.status()["queue"]["pending"] == 0


async def test_a_wide_fork_over_one_deployment_ends_within_a_flow_within_a_flow_too() -> None:
    """FL-06: fifty branches share a Deployment with two threads, and one place each is asked for."""
    shared = Deployment(Mark, allow_concurrent=2, max_queue=8)
    wide = Flow()
    for number in range(50):
        wide = wide.add(uses=shared, name=f"n{number}", needs="gateway")
    wide = wide.needs_all()
    async with Flow().add(uses=wide, name="wide").add(uses=shared, name="after") as flow:
        answers = await asyncio.wait_for(asyncio.gather(*(flow.call("/go", [doc()]) for _ in range(4))), 30)
    assert [len(answer[0].seen) for answer in answers] == [51] * 4


async def test_neighbours_of_equal_fields_but_other_classes_get_documents_of_their_own() -> None:
    class Same(BaseDoc):
        text: str
        n: int = 0
        seen: list[str] = []

    class Another(Executor):
        @requests(on="/go")
        def go(self, docs: DocList[Same]) -> DocList[Same]:
            assert all(type(d) is Same for d in docs)
            return docs

    async with Flow().add(uses=Mark, name="a").add(uses=Another, name="b") as flow:
        [answer] = await flow.call("/go", [doc(id="1")])
    assert (type(answer), answer.id, answer.text) == (Same, "1", "xa")


async def test_documents_that_a_fallback_does_not_take_are_the_givers_fault() -> None:
    """FL-03: the first node answers /go, the second by its /default, which takes others."""

    class Number(BaseDoc):
        number: int

    class Fallback(Executor):
        @requests
        def default(self, docs: DocList[Number]) -> DocList[Number]:
            return docs

    async with Flow().add(uses=Mark, name="a").add(uses=Fallback, name="b") as flow:
        with pytest.raises(
            ExecutorError, match="'b' does not take what 'a' gave: expected documents of Number, got Doc"
        ):
            await flow.call("/go", [doc()])


async def test_a_join_of_documents_that_do_not_fit_names_both_nodes_and_both_classes() -> None:
    """The first branch answers /go, the second by its /default, which gives others."""

    class Number(BaseDoc):
        text: int = 3

    class Fallback(Executor):
        @requests
        def default(self, docs: DocList[Doc]) -> DocList[Number]:
            return DocList[Number](Number(id=doc.id) for doc in docs)

    async with Flow().add(uses=Mark, name="a").add(uses=Fallback, name="b", needs="gateway").needs(["a", "b"]) as flow:
        with pytest.raises(ExecutorError) as raised:
            await flow.call("/go", [doc()])
    said = (
        "'joiner' merges what 'a' and 'b' gave, and the documents of Number from 'b' are none of Doc, which 'a' gave: "
    )
    assert str(raised.value).startswith(said)
    assert "text" in str(raised.value)


async def test_nodes_are_made_in_turn_warm_up_together_and_end_in_reverse() -> None:
    order: list[str] = []
    making: list[str] = []

    class Slow(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            making.append(self.runtime_args.name)
            time.sleep(0.05)
            assert [self.runtime_args.name] == making  # reading a model changes what is true of the whole process
            making.clear()

        def warmup(self) -> None:
            barrier.wait(10)  # each waits for the other

        @requests(on="/go")
        async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
            return docs

        def close(self) -> None:
            order.append(self.runtime_args.name)

    barrier = threading.Barrier(2)
    async with Flow().add(uses=Slow, name="a").add(uses=Slow, name="b"):
        pass
    assert order == ["b", "a"]


async def test_a_node_that_fails_to_load_ends_the_others_and_is_named() -> None:
    class Bad(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            raise ValueError("no model")

    class Good(Executor):
        def close(self) -> None:
            closed.append(self)

    closed: list[Executor] = []
    flow = Flow().add(uses=Good, name="good").add(uses=Bad, name="bad")
    with pytest.raises(ValueError, match="no model") as raised:
        async with flow:
            pass
    assert "in the node 'bad'" in raised.value.__notes__
    assert len(closed) <= 1  # it may have been stopped before it was made


async def test_the_one_node_before_is_named_in_docs_map() -> None:
    flow = Flow().add(uses=Joined, name="first").add(uses=Mark, name="mark").add(uses=Joined, name="last")
    async with flow.add(name="hands_on").add(uses=Joined, name="after") as flow:
        results = (await flow.run("/go", [Doc(text="x")])).results
    maps = {key.partition("/")[0]: value["map"] for key, value in results.items()}
    assert maps == {"first": {"gateway": ["x"]}, "last": {"mark": ["xmark"]}, "after": {"hands_on": ["xmark"]}}


async def test_a_flow_in_a_flow_hands_on_the_name_of_the_node_before() -> None:
    inner = Flow().add(uses=Joined, name="inside")
    async with Flow().add(uses=Mark, name="mark").add(uses=inner, name="inner") as flow:
        (result,) = (await flow.run("/go", [Doc(text="x")])).results.values()
    assert result["map"] == {"mark": ["xmark"]}
