"""Batches of a pool: formed by whoever never reads a document, by what documents cost where they are read."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel, field_validator

from jina_asgi import (
    DefinitionError,
    Deployment,
    Executor,
    InvalidDocs,
    Overloaded,
    ReplicaPool,
    dynamic_batching,
    requests,
)
from jina_asgi.types import Context

pytestmark = pytest.mark.processes


class Text(BaseModel):
    text: str
    of: int = 0

    @field_validator("text")
    @classmethod
    def is_no_poison(cls, text: str) -> str:
        if text == "poison":
            raise ValueError("poison")
        return text


class Known(BaseDoc):
    text: str
    level: int = 0
    call: int = 0
    of: int = 0


def letters(doc: Text) -> float:
    return len(doc.text)


class Counts(Executor):
    """Says how many documents shared a call."""

    @dynamic_batching(preferred_batch_size=100, cost="len:text", max_cost=10)
    @requests(on="/by_field")
    def by_field(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text, of=len(docs)) for doc in docs]

    @dynamic_batching(preferred_batch_size=8)
    @requests(on="/by_number")
    def by_number(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text, of=len(docs)) for doc in docs]


class ByFunction(Executor):
    """As `Counts`, with functions."""

    @dynamic_batching(preferred_batch_size=100, cost=letters, max_cost=10)
    @requests(on="/by_function")
    def by_function(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text, of=len(docs)) for doc in docs]

    @dynamic_batching(preferred_batch_size=10, custom_metric=letters, use_custom_metric=True)
    @requests(on="/by_metric")
    def by_metric(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text, of=len(docs)) for doc in docs]


class Ordered(Executor):
    """Says which call a document was in, and how many shared it; waits a while, so that the next ones gather."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls = 0

    def _run(self, docs: DocList[Known]) -> DocList[Known]:
        self.calls += 1
        time.sleep(0.2)
        for doc in docs:
            doc.call, doc.of = self.calls, len(docs)
        return docs

    @dynamic_batching(preferred_batch_size=2, priority="level")
    @requests(on="/by_priority")
    def by_priority(self, docs: DocList[Known]) -> DocList[Known]:
        return self._run(docs)

    @dynamic_batching(preferred_batch_size=4, tenant="header:x-tenant", tenant_weights={"gold": 3}, mix_tenants=True)
    @requests(on="/by_tenant")
    def by_tenant(self, docs: DocList[Known]) -> DocList[Known]:
        return self._run(docs)

    @dynamic_batching(preferred_batch_size=32, single_flight=True)
    @requests(on="/once")
    def once(self, docs: DocList[Known]) -> DocList[Known]:
        return self._run(docs)

    @dynamic_batching(preferred_batch_size=32, cost="len:text", max_padding=1.15)
    @requests(on="/by_length")
    def by_length(self, docs: DocList[Known]) -> DocList[Known]:
        return self._run(docs)


def hosted(uses: Any, **options: Any) -> Deployment:
    return Deployment(uses, **{"replicas": 1, **options})


def kept(uses: Any, **options: Any) -> Deployment:
    return ReplicaPool(uses, **options)


@pytest.mark.parametrize("make", [hosted, kept])
async def test_a_batch_is_bounded_by_the_cost_of_a_field(make: Any) -> None:
    for uses in (Counts, f"{__name__}.Counts"):
        async with make(uses) as pool:
            found = await pool.call("/by_field", [{"text": "abcd"} for _ in range(5)])
            assert [facts(doc)["of"] for doc in found] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("make", [hosted, kept])
async def test_functions_report_the_cost_where_the_class_is_at_hand(make: Any) -> None:
    async with make(ByFunction) as pool:
        for on in ("/by_function", "/by_metric"):
            found = await pool.call(on, [Text(text="abcd") for _ in range(5)])
            assert [doc.of for doc in found] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("make", [hosted, kept])
async def test_functions_are_refused_where_only_the_replicas_have_the_class(make: Any) -> None:
    with pytest.raises(DefinitionError, match="batches by a function"):
        async with make(f"{__name__}.ByFunction"):
            pass


async def asked(pool: Deployment, on: str, docs: list[Known], *tenants: str) -> list[Known]:
    """The answers, of calls that came while one ran."""
    busy = asyncio.ensure_future(pool.call(on, [Known(text="busy")]))
    await asyncio.sleep(0.1)
    contexts = [Context(headers={"x-tenant": tenant}) for tenant in tenants] or [None for _ in docs]
    calls = [pool.call(on, [doc], context=context) for doc, context in zip(docs, contexts, strict=True)]
    found = [answer for [answer] in await asyncio.gather(*calls)]
    await busy
    return found


@pytest.mark.parametrize("make", [hosted, kept])
async def test_priorities_and_tenants_are_reported_where_documents_are_read_and_kept_where_they_wait(make: Any) -> None:
    async with make(Ordered) as pool:
        found = await asked(pool, "/by_priority", [Known(text=str(level), level=level) for level in range(6)])
        assert [doc.call for doc in found] == sorted((doc.call for doc in found), reverse=True)
        assert len({doc.call for doc in found}) == 3
        tenants = ["gold", "plain"] * 6
        found = await asked(pool, "/by_tenant", [Known(text=tenant) for tenant in tenants], *tenants)
        first = min(doc.call for doc in found)
        assert Counter(doc.text for doc in found if doc.call == first) == {"gold": 3, "plain": 1}


@pytest.mark.parametrize("make", [hosted, kept])
async def test_what_is_equal_is_run_once_for_all_and_each_has_its_own_id(make: Any) -> None:
    async with make(Ordered) as pool:
        docs = [Known(text=text) for text in ("same", "same", "other", "same")]
        found = await asked(pool, "/once", docs)
        assert [(doc.id, doc.text, doc.of) for doc in found] == [(doc.id, doc.text, 2) for doc in docs]


async def test_lengths_ride_with_their_like() -> None:
    async with hosted(Ordered) as pool:
        found = await asked(pool, "/by_length", [Known(text="a" * (256 if number % 3 else 8)) for number in range(9)])
        assert [doc.of for doc in found] == [6 if number % 3 else 3 for number in range(9)]


async def test_a_document_that_only_its_class_refuses_fails_alone() -> None:
    async with hosted(f"{__name__}.Counts") as pool:
        texts = ["a", "b", "poison", "d", "e", "f", "poison", "h"]
        calls = [pool.call("/by_number", [{"text": text}]) for text in texts]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for text, found in zip(texts, outcomes, strict=True):
            if text == "poison":
                assert isinstance(found, InvalidDocs)
            else:
                assert not isinstance(found, BaseException)
                assert facts(found[0])["text"] == text


async def test_unused_code_makes_way_for_changed_code() -> None:
    for size in (2, 4, 2):
        batching = {"/by_number": {"preferred_batch_size": size}}
        async with hosted(Counts, name="changing", uses_dynamic_batching=batching) as pool:
            found = await pool.call("/by_number", [Text(text=str(number)) for number in range(8)])
            assert [doc.of for doc in found] == [size] * 8


def facts(doc: Any) -> dict[str, Any]:
    """A document, as an object or as the fields that it has where its class is not at hand."""
    return dict(doc) if isinstance(doc, dict) else doc.model_dump()


@pytest.mark.parametrize("make", [hosted, kept])
async def test_documents_may_be_objects_though_their_class_is_at_hand_to_replicas_alone(make: Any) -> None:
    async with make(f"{__name__}.Counts") as pool:
        [doc] = await pool.call("/by_number", Text(text="a"))
        assert {"text": "a", "of": 1} == doc


class Patient(Executor):
    @requests(on="/wait")
    async def wait(self, docs: list[Text]) -> list[Text]:
        await asyncio.sleep(float(docs[0].text))
        return docs


async def test_a_worker_refuses_before_the_body_while_the_queue_of_all_is_full() -> None:
    deployment, other = hosted(Patient, max_queue=2), hosted(Patient, max_queue=2)
    async with deployment, other:
        running = [asyncio.create_task(deployment.call("/wait", Text(text="1"))) for _ in range(2)]
        running += [asyncio.create_task(other.call("/wait", Text(text="1"))) for _ in range(2)]
        refused, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)  # by the host, whoever came last
        assert all(isinstance(task.exception(), Overloaded) for task in refused)
        told = [one for one in (deployment, other) if admits(one) is Overloaded]
        assert told
        answered = await asyncio.gather(*running, return_exceptions=True)
        assert 2 == sum(isinstance(answer, Overloaded) for answer in answered)
        async with asyncio.timeout(10):
            while admits(told[0]) is Overloaded:
                await asyncio.sleep(0.01)  # it is a matter of time


def admits(deployment: Deployment) -> type[Exception] | None:
    try:
        deployment.runner.admit("/wait").close()
    except Overloaded as error:
        return type(error)
    return None


async def test_the_figures_of_a_worker_are_those_of_the_whole_pool() -> None:
    deployment = hosted(Counts, heartbeat=1.0, replicas=2)
    async with deployment:
        await asyncio.gather(*(deployment.call("/by_number", Text(text=str(index))) for index in range(20)))
        async with asyncio.timeout(15):
            while True:
                figures = deployment.runner.status()
                if figures["calls"] == 20 and {r["state"] for r in figures["replicas"].values()} == {"ready"}:
                    break
                await asyncio.sleep(0.05)  # they come with the next sign of life
        assert ["executor/rep-0", "executor/rep-1"] == list(figures["replicas"])
        assert 20 == sum(int(size) * n for size, n in figures["batching"]["/by_number"]["batch_sizes"].items())
        assert (0, 20) == (figures["worker"]["queue"]["pending"], figures["worker"]["calls"])
        assert "ready" == figures["host"]["executor/rep-0"]["state"]
