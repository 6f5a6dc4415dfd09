"""The options of batching as an Executor is served with them: in process, over HTTP, and from a class's decorator."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import httpx
import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi import (
    DefinitionError,
    Deployment,
    Executor,
    ExecutorError,
    JinaASGI,
    Overloaded,
    dynamic_batching,
    requests,
)
from jina_asgi.testing import client
from jina_asgi.types import Context


class Text(BaseDoc):
    text: str
    whose: str = ""
    level: int = 0
    array: NdArray | None = None


MADE: list[Model] = []


class Model(Executor):
    """Remembers its batches; the first waits at a gate."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.batches: list[list[str]] = []
        self.gate, self.began = threading.Event(), threading.Event()
        MADE.append(self)

    @requests(on="/run", idempotent=True)
    def run(self, docs: DocList[Text]) -> DocList[Text]:
        self.batches.append([doc.text for doc in docs])
        self.began.set()
        self.gate.wait(10)
        for doc in docs:
            if doc.text == "poison":
                raise ValueError("poison")
            doc.array = np.zeros(3)  # type: ignore[assignment]  # docarray makes its own of it
        return docs

    @requests(on="/new")
    def new(self, docs: DocList[Text]) -> DocList[Text]:
        self.batches.append([doc.text for doc in docs])
        return DocList[Text](Text(text=doc.text) for doc in docs)


def model(**options: Any) -> Deployment:
    batching = {"preferred_batch_size": 4, **options}
    return Deployment(Model, uses_dynamic_batching={"/run": batching, "/new": batching})


def executor() -> Model:
    """The one that was loaded last."""
    return MADE[-1]


async def behind_one(deployment: Deployment, *docs: Text, contexts: dict[str, Context] | None = None) -> list[Any]:
    """The outcomes of calls that came while another ran."""
    served = executor()
    busy = asyncio.ensure_future(deployment.call("/run", [Text(text="busy")]))
    await asyncio.to_thread(served.began.wait)
    made = contexts or {}
    calls = [asyncio.ensure_future(deployment.call("/run", [doc], context=made.get(doc.text))) for doc in docs]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    served.gate.set()
    await busy
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_documents_of_similar_cost_ride_together() -> None:
    async with model(cost="len:text", max_padding=1.5) as deployment:
        texts = [letter * size for letter, size in zip("abcdef", (2, 64, 2, 60, 2, 62), strict=True)]
        await behind_one(deployment, *(Text(text=text) for text in texts))
        lengths = [sorted(map(len, batch)) for batch in executor().batches[1:]]
        assert sorted(lengths) == [[2, 2, 2], [60, 62, 64]] or sorted(lengths) == [[2, 2, 2], [60, 62], [64]]


async def test_the_higher_priority_of_a_field_goes_first() -> None:
    async with model(preferred_batch_size=1, priority="level") as deployment:
        await behind_one(deployment, Text(text="low"), Text(text="high", level=3), Text(text="mid", level=1))
        assert executor().batches[1:] == [["high"], ["mid"], ["low"]]


@pytest.mark.parametrize(
    "option", [{"priority": "context:identity.level"}, {"priority": lambda c: c.context.identity["level"]}]
)
async def test_the_priority_of_an_identity_goes_first(option: dict[str, Any]) -> None:
    contexts = {text: Context(identity={"level": level}) for text, level in (("busy", 0), ("low", 0), ("high", 2))}
    async with model(preferred_batch_size=1, **option) as deployment:
        served = executor()
        served.gate.set()
        await deployment.call("/run", [Text(text="busy")], context=contexts["busy"])
        served.gate.clear()
        served.began.clear()
        busy = asyncio.ensure_future(deployment.call("/run", [Text(text="busy")], context=contexts["busy"]))
        await asyncio.to_thread(served.began.wait)
        calls = [
            asyncio.ensure_future(deployment.call("/run", [Text(text=text)], context=contexts[text]))
            for text in ("low", "high")
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        served.gate.set()
        await asyncio.gather(busy, *calls)
        assert served.batches[2:] == [["high"], ["low"]]


async def test_tenants_take_turns_and_share_a_batch_only_where_they_may() -> None:
    docs = [Text(text=f"{whose}{number}", whose=whose) for whose in "ab" for number in range(4)]
    async with model(tenant="whose") as deployment:
        await behind_one(deployment, *docs)
        assert [{text[0] for text in batch} for batch in executor().batches[1:]] in (
            [{"a"}, {"b"}],
            [{"b"}, {"a"}],
        )
    async with model(tenant="whose", mix_tenants=True, tenant_weights={"a": 3}) as deployment:
        await behind_one(deployment, *docs)
        assert Counter(text[0] for text in executor().batches[1]) == {"a": 3, "b": 1}


async def test_equal_documents_are_run_once_and_each_is_answered_under_its_own_id() -> None:
    async with model(single_flight=True) as deployment:
        docs = [Text(text="same") for _ in range(20)]
        found = await behind_one(deployment, *docs)
        assert executor().batches[1:] == [["same"]]
        assert [answer.id for [answer] in found] == [doc.id for doc in docs]
        found[0][0].array[0] = 1  # nobody else sees it
        assert found[1][0].array[0] == 0


async def test_an_answer_with_an_id_of_its_own_keeps_it() -> None:
    async with model(single_flight=True) as deployment:
        first, second = await asyncio.gather(*(deployment.call("/new", [Text(text="x")]) for _ in range(2)))
        assert len(executor().batches) == 1
        assert first[0].id == second[0].id


async def test_never_across_tenants_or_parameters() -> None:
    async with model(single_flight=True, tenant="whose", mix_tenants=True) as deployment:
        await behind_one(deployment, Text(text="x", whose="a"), Text(text="x", whose="b"))
        assert executor().batches[1:] == [["x", "x"]]


async def test_a_poison_that_several_asked_for_fails_them_and_no_others() -> None:
    async with model(single_flight=True) as deployment:
        texts = ["poison", "good", "poison", "well"]
        found = await behind_one(deployment, *(Text(text=text) for text in texts))
        assert [isinstance(one, ExecutorError) for one in found] == [True, False, True, False]


async def test_a_flood_of_one_tenant_leaves_room_in_the_queue_for_another() -> None:
    options = {"/run": {"tenant": "header:x-tenant"}}
    served = Deployment(Model, uses_dynamic_batching=options, max_queue=32)
    app = JinaASGI(served, wait_ready=True)
    async with client(app) as http:
        executor_of = executor()

        def post(whose: str) -> asyncio.Task[httpx.Response]:
            body = {"data": [{"text": "x"}]}
            return asyncio.ensure_future(http.post("/run", json=body, headers={"x-tenant": whose}))

        flood = [post("flood") for _ in range(30)]
        refused = [one for one in flood[20:] if (await asyncio.wait_for(asyncio.shield(one), 5)).status_code == 503]
        assert refused
        assert int(refused[0].result().headers["retry-after-ms"]) > 0
        polite = post("polite")
        await asyncio.to_thread(executor_of.began.wait)
        executor_of.gate.set()
        assert (await polite).status_code == 200
        outcomes = Counter(one.status_code for one in await asyncio.gather(*flood))
        assert outcomes[200] >= 10
        assert set(outcomes) == {200, 503}


async def test_a_header_is_trusted_only_where_it_is_asked_for() -> None:
    served = model(priority="header:x-priority")
    async with client(JinaASGI(served, wait_ready=True)) as http:
        executor().gate.set()
        body = {"data": [{"text": "x"}]}
        assert (await http.post("/run", json=body, headers={"x-priority": "5"})).status_code == 200
        answer = await http.post("/run", json=body, headers={"x-priority": "high"})
        assert (answer.status_code, "expected a whole number" in answer.text) == (400, True)


async def test_a_function_that_fails_fails_its_caller_alone() -> None:
    def tenant(call: Any) -> str:
        if call.docs.typed[0].text == "bad":
            raise KeyError("nobody")
        return "somebody"

    async with model(tenant=tenant) as deployment:
        executor().gate.set()
        good, bad = await asyncio.gather(
            *(deployment.call("/run", [Text(text=text)]) for text in ("good", "bad")), return_exceptions=True
        )
        assert not isinstance(good, BaseException)
        assert good[0].text == "good"
        assert "the tenant of a call to /run could not be computed: KeyError" in str(bad)


async def test_calls_that_cannot_keep_the_target_are_refused_with_a_time_to_return() -> None:
    class Slow(Executor):
        @dynamic_batching(preferred_batch_size=2, latency_target=50)
        @requests(on="/run")
        def run(self, docs: list[Text]) -> list[Text]:
            time.sleep(0.01)
            return docs

    async with Deployment(Slow) as deployment:
        for _ in range(5):
            await deployment.call("/run", [Text(text="x")])
        calls = [deployment.call("/run", [Text(text="x")]) for _ in range(100)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in found if isinstance(one, Overloaded)]
        assert 50 < len(refused) < 100
        assert all(one.retry_after > 0 and not one.server_wide for one in refused)
        assert len([one for one in found if not isinstance(one, Exception)]) == 100 - len(refused)


async def test_a_call_of_many_documents_is_answered_whatever_the_target() -> None:
    async with model(latency_target=20) as deployment:
        executor().gate.set()
        for _ in range(5):
            await deployment.call("/run", [Text(text="x")])
        assert len(await deployment.call("/run", [Text(text="x")] * 200)) == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_padding": 1.15}, "need a cost"),
        ({"cost": "len:text", "max_padding": 0.9}, "greater than or equal to 1"),
        ({"cost": "len:text", "max_padding": 1.2, "buckets": [8.0]}, "give one"),
        ({"cost": "len:text", "buckets": [8, 8]}, "must be in ascending order"),
        ({"padded": True}, "give max_cost"),
        ({"tenant_weights": {"a": 2}}, "need a tenant"),
        ({"tenant": "whose", "tenant_weights": {"a": 0}}, "greater than 0"),
        ({"tenant": "context:request_id"}, "context:identity"),
        ({"priority": "__class__"}, "header:x-tenant"),
        ({"latency_target": 0}, "greater than 0"),
        ({"latency_taget": 5}, "did you mean 'latency_target'"),
    ],
)
def test_what_does_not_fit_together_is_said_when_it_is_written(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=".*".join(says.split("*"))):
        model(**options)


async def test_an_executors_yaml_has_the_same_options(tmp_path: Any) -> None:
    (tmp_path / "config.yml").write_text(
        f"jtype: {__name__}.Model\ndynamic_batching:\n  run:\n    cost: len:text\n    buckets: [4, 64]\n"
        "    tenant: context:identity\n    tenant_weights: {gold: 3}\n    single_flight: true\n"
    )
    async with Deployment(str(tmp_path / "config.yml")) as deployment:
        executor().gate.set()
        found = await asyncio.gather(*(deployment.call("/run", [Text(text="x")]) for _ in range(3)))
        assert len(found) == 3
        assert executor().batches == [["x"]]
