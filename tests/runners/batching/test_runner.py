"""Batching in front of a Runner: parameters, results, parameters again, and the end of serving."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi import (
    BatchFailed,
    Context,
    Deployment,
    Executor,
    ExecutorError,
    InvalidDocs,
    NotReady,
    ReplicaDied,
    TooLarge,
    dynamic_batching,
    requests,
)
from jina_asgi.runners.batching.runner import canonical


class Text(BaseDoc):
    text: str = ""


class Options(BaseModel):
    times: int = 1


class Model(Executor):
    """Answers what its batches were; `/held` waits until it is let go."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches: list[list[str]] = []
        self.running, self.let_go = threading.Event(), threading.Event()

    @dynamic_batching(preferred_batch_size=4)
    @requests(on="/typed")
    async def typed(self, docs: DocList[Text], parameters: Options) -> DocList[Text]:
        await asyncio.sleep(0)
        self.batches.append([doc.text for doc in docs])
        return DocList[Text]([Text(text=doc.text * parameters.times) for doc in docs])

    @requests(on="/held")
    @dynamic_batching(preferred_batch_size=4)
    def held(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        self.running.set()
        while docs[0].text == "hold" and not context.cancelled and not self.let_go.wait(0.005):
            pass
        self.batches.append([f"{doc.text}{' alone' * context.cancelled}" for doc in docs])
        return docs

    @dynamic_batching(cost="len:text", max_cost=5, over_budget="refuse")
    @requests(on="/weighed")
    async def weighed(self, docs: DocList[Text]) -> DocList[Text]:
        self.batches.append([doc.text for doc in docs])
        return docs

    @dynamic_batching(cost=lambda doc: 1 / len(doc.text), max_cost=5)
    @requests(on="/cost")
    async def cost(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @dynamic_batching(use_custom_metric=True, custom_metric=lambda doc: len(doc.text), preferred_batch_size=5)
    @requests(on="/metric")
    async def metric(self, docs: DocList[Text]) -> DocList[Text]:
        self.batches.append([doc.text for doc in docs])
        return docs

    @dynamic_batching
    @requests(on="/dict")
    async def a_dict(self, docs: DocList[Text]) -> DocList[Text]:
        return {"n": 1}  # type: ignore[return-value]  # the mistake that a test is about

    @dynamic_batching
    @requests(on="/fewer")
    async def fewer(self, docs: DocList[Text]) -> DocList[Text]:
        return docs[:-1]

    @requests(on="/batches")
    async def seen(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(text=" ".join(batch)) for batch in self.batches])


def texts(*values: str) -> list[Text]:
    return [Text(text=value) for value in values]


async def batches(model: Deployment) -> list[str]:
    return [doc.text for doc in await model.call("/batches", [])]


async def together(model: Deployment, on: str, *calls: tuple[list[Text], dict[str, Any]]) -> list[Any]:
    tasks = [model.call(on, docs, parameters) for docs, parameters in calls]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def until(model: Deployment, **figures: int) -> None:
    async with asyncio.timeout(10):
        while {k: model.runner.status()["batching"]["/held"][k] for k in figures} != figures:
            await asyncio.sleep(0)


async def test_typed_parameters_work_and_different_ones_never_mix() -> None:
    async with Deployment(Model) as model:
        asked: list[Any] = [
            (texts("a"), {"times": 2}),
            (texts("b"), {"times": 3}),
            (texts("c"), {"times": 2.0}),
            (texts("d"), {}),
        ]
        answers = await together(model, "/typed", *asked)
        assert [[doc.text for doc in docs] for docs in answers] == [["aa"], ["bbb"], ["cc"], ["d"]]
        assert sorted(await batches(model)) == ["a c", "b", "d"]


async def test_unfit_parameters_are_every_ones_own_422() -> None:
    async with Deployment(Model) as model:
        unfit = (texts("a"), {"times": "many"})
        errors = await together(model, "/typed", unfit, unfit)
        assert [type(error) for error in errors] == [InvalidDocs, InvalidDocs]


async def test_keys_are_forgotten_when_their_calls_are_over() -> None:
    async with Deployment(Model) as model:
        await together(model, "/typed", *((texts("a"), {"times": n}) for n in range(50)))
        batched: Any = model.runner.inner.inner.inner  # type: ignore[attr-defined]  # the batcher, three wrappers in
        assert batched._batched["/typed"]._parameters == {}


async def test_an_answer_is_a_list_of_its_own_of_the_declared_class() -> None:
    async with Deployment(Model) as model:
        one, two = await together(model, "/typed", (texts("a", "b"), {}), (texts("c"), {}))
        assert isinstance(one, DocList)
        assert isinstance(two, DocList)
        one.append(Text(text="mine"))
        assert [doc.text for doc in two] == ["c"]


async def test_an_empty_call_is_answered_at_once() -> None:
    async with Deployment(Model) as model:
        assert list(await model.call("/typed", [])) == []
        assert await batches(model) == []


async def test_one_over_the_budget_is_refused_and_the_others_share_it() -> None:
    async with Deployment(Model) as model:
        answers = await together(model, "/weighed", *((texts(text), {}) for text in ("abc", "toolong", "de", "f")))
        assert type(answers[1]) is TooLarge
        assert await batches(model) == ["abc de", "f"]


@pytest.mark.parametrize("wrong", ["", "nan"])
async def test_a_cost_that_cannot_be_computed_fails_its_caller_alone(wrong: str) -> None:
    def cost(doc: Any) -> float:
        return float("nan") if doc.text == "nan" else 1 / len(doc.text)

    async with Deployment(Model, uses_dynamic_batching={"/cost": {"cost": cost}}) as model:
        bad, good = await together(model, "/cost", (texts(wrong), {}), (texts("a"), {}))
        assert type(bad) is ExecutorError
        assert "cost" in str(bad)
        assert [doc.text for doc in good] == ["a"]


async def test_a_custom_metric_bounds_weight_and_weightless_tails_are_answered() -> None:
    async with Deployment(Model) as model:
        docs = texts("abc", "de", "", "f", "")
        assert [doc.text for doc in await model.call("/metric", docs)] == ["abc", "de", "", "f", ""]
        assert await batches(model) == ["abc de ", "f "]


@pytest.mark.parametrize(("on", "says"), [("/dict", "returned a dict"), ("/fewer", "/fewer: expected 2 answers")])
async def test_a_wrong_number_of_answers_is_reported_to_all_by_name(on: str, says: str) -> None:
    async with Deployment(Model) as model:
        for error in await together(model, on, (texts("a"), {}), (texts("b"), {})):
            assert type(error) is ExecutorError
            assert says in str(error)
            assert not isinstance(error, BatchFailed)


async def test_a_sync_batch_is_notified_once_all_have_left_and_the_queued_never_run() -> None:
    async with Deployment(Model) as model:
        first = asyncio.ensure_future(model.call("/held", texts("hold")))
        await until(model, running=1)
        waiting = [asyncio.ensure_future(model.call("/held", texts(text))) for text in "abcd"]
        await until(model, running=2)  # a full batch is handed over, and not yet begun
        waiting[1].cancel()
        await asyncio.sleep(0)
        first.cancel()
        answers = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False, True, False, False]
        assert await batches(model) in (["a c d"], ["hold alone", "a c d"])


async def test_leaving_finishes_what_is_queued_within_grace() -> None:
    async with Deployment(Model) as model:
        tasks = [asyncio.ensure_future(model.call("/held", texts(str(n)))) for n in range(9)]
        await until(model, queued=9)
    assert [docs[0].text for docs in await asyncio.gather(*tasks)] == [str(n) for n in range(9)]


async def test_after_the_grace_period_those_that_run_get_an_error_and_those_that_wait_to_come_back() -> None:
    async with Deployment(Model, grace=0.05) as model:
        tasks = [asyncio.ensure_future(model.call("/held", texts("hold")))]
        await until(model, running=1)
        tasks += [asyncio.ensure_future(model.call("/held", texts("queued")))]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ReplicaDied, NotReady]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1, "b": [1, {"c": None}]}, {"b": [1.0, {"c": None}], "a": 1}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": b"1"}, {"a": "1"}, False),
        ({"a": []}, {"a": {}}, False),
        ({}, {"__results__": {"x": 1}}, False),
        ({"a": 1, "__results__": {"x": 1}}, {"a": 1}, True),
        ({"a": np.zeros(5000)}, {"a": np.ones(5000)}, False),
    ],
)
def test_parameters_are_one_key_where_they_mean_the_same(one: Any, other: Any, equal: bool) -> None:
    assert (canonical(one) == canonical(other)) is equal


def test_parameters_nested_too_deep_are_the_callers_error() -> None:
    deep: dict[str, Any] = {}
    deep["deep"] = deep
    with pytest.raises(InvalidDocs, match="too deep"):
        canonical(deep)
