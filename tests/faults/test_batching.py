"""Group BA of the faults: whatever members, clients and clocks do, each request has its one outcome, over HTTP too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Deployment, Executor, JinaASGI, dynamic_batching, requests
from jina_asgi.testing import client


class Text(BaseDoc):
    text: str = ""
    extra: Any = None


class Model(Executor):
    """`/careful` may be run again, `/careless` may not; both raise for "bad", and wait at a gate for "hold"."""

    gate: threading.Event
    running: asyncio.Event

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = threading.Event()
        self.batches: list[list[str]] = []

    def _run(self, docs: DocList[Text]) -> DocList[Text]:
        texts = [doc.text for doc in docs]
        self.batches.append(texts)
        if "hold" in texts:
            self.gate.wait(10)
        if "bad" in texts or ("left" in texts and "right" in texts):
            raise ValueError("poison")
        for doc in docs:
            doc.extra = object() if doc.text == "unserialisable" else None
        return docs

    @dynamic_batching(preferred_batch_size=32)
    @requests(on="/careful", idempotent=True)
    def careful(self, docs: DocList[Text]) -> DocList[Text]:
        return self._run(docs)

    @dynamic_batching(preferred_batch_size=32)
    @requests(on="/careless")
    def careless(self, docs: DocList[Text]) -> DocList[Text]:
        return self._run(docs)

    @dynamic_batching(preferred_batch_size=32, cost="len:text", max_cost=20, over_budget="refuse")
    @requests(on="/budget")
    def budget(self, docs: DocList[Text]) -> DocList[Text]:
        return self._run(docs)

    @dynamic_batching(preferred_batch_size=32)
    @requests(on="/wrong")
    async def wrong(self, docs: DocList[Text], parameters: dict[str, Any]) -> DocList[Text]:
        match parameters["how"]:
            case "fewer":
                return docs[:-1]
            case "more":
                return DocList[Text]([*docs, *docs])
            case "none":
                return DocList[Text]()
            case "dict":
                return {"n": 1}  # type: ignore[return-value]
            case "tuple":
                return tuple(docs)  # type: ignore[return-value]
            case "generator":
                return (doc for doc in docs)  # type: ignore[return-value]
            case _:
                return [1 for _ in docs]  # type: ignore[return-value]

    @requests(on="/open")
    async def open(self, docs: DocList[Text]) -> DocList[Text]:
        self.gate.set()
        return docs

    @requests(on="/batches")
    async def seen(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text]([Text(text=" ".join(batch)) for batch in self.batches])


class Service:
    """A served Model, and the words the tests use of it."""

    def __init__(self, app: JinaASGI, http: httpx.AsyncClient) -> None:
        self.app, self.http = app, http

    async def post(self, on: str, *texts: str, headers: dict[str, str] | None = None, **parameters: Any) -> Any:
        body = {"data": [{"text": text} for text in texts], "parameters": parameters}
        return await self.http.post(on, json=body, headers=headers)

    async def figures(self, on: str) -> dict[str, Any]:
        status = (await self.http.get("/-/status")).json()
        [deployment] = status["deployments"].values()
        return {**deployment["batching"][on], "queue": deployment["queue"]}

    async def while_busy(self, on: str, *texts: str) -> list[httpx.Response]:
        """A request of each text, all of them queued while another runs."""
        first = asyncio.ensure_future(self.post(on, "hold"))
        await self.until(on, running=1)
        waiting = [asyncio.ensure_future(self.post(on, text)) for text in texts]
        await self.until(on, pending=1 + len(texts))
        await self.post("/open")
        await first
        return await asyncio.gather(*waiting)

    async def until(self, on: str, pending: int = 0, **figures: int) -> None:
        async with asyncio.timeout(10):
            while True:
                now = await self.figures(on)
                reached = pending in (0, now["queue"]["pending"]) and figures == {key: now[key] for key in figures}
                if reached and (not pending or now["running"] == 2 or now["queued"] == pending - 1):
                    return

    async def batches(self) -> list[str]:
        return [doc["text"] for doc in (await self.post("/batches")).json()["data"]]


@pytest.fixture
async def service() -> Any:
    app = JinaASGI(Deployment(Model, max_queue=64, max_queue_bytes=20_000), wait_ready=True)
    async with client(app) as http:
        yield Service(app, http)


def outcome(answer: httpx.Response) -> Any:
    return answer.status_code if answer.status_code == 200 else answer.json()["error"]["type"]


@pytest.mark.parametrize("place", [0, 15, 31])
async def test_ba01_one_poison_of_32_fails_alone_where_running_again_is_allowed(service: Service, place: int) -> None:
    texts = [f"t{n}" for n in range(32)]
    texts[place] = "bad"
    answers = await service.while_busy("/careful", *texts)
    assert [outcome(answer) for answer in answers].count(200) == 31
    assert outcome(answers[place]) == "ExecutorError"
    assert len(await service.batches()) - 2 <= 11


async def test_ba01_elsewhere_all_learn_that_another_try_may_succeed(service: Service) -> None:
    answers = await service.while_busy("/careless", "good", "bad")
    assert [outcome(answer) for answer in answers] == ["BatchFailed", "BatchFailed"]
    assert all(answer.json()["error"]["retriable"] for answer in answers)
    assert "poison" not in answers[0].text
    assert outcome(await service.post("/careless", "bad")) == "ExecutorError"


@pytest.mark.parametrize("bad", [{1, 30}, set(range(0, 32, 2)), set(range(32))])
async def test_ba02_many_poisons_fail_just_themselves(service: Service, bad: set[int]) -> None:
    answers = await service.while_busy("/careful", *("bad" if n in bad else f"t{n}" for n in range(32)))
    assert {n for n, answer in enumerate(answers) if answer.status_code != 200} == bad
    assert len(await service.batches()) - 1 <= 2 * 32 - 1


async def test_ba02_a_poison_that_needs_its_neighbour_harms_no_other_once_they_are_apart(service: Service) -> None:
    answers = await service.while_busy("/careful", "left", "right", "other")
    assert [outcome(answer) for answer in answers] == [200, 200, 200]


async def test_ba04_other_parameters_are_another_batch(service: Service) -> None:
    asked = [service.post("/careful", f"{n}", p=n % 3) for n in range(12)]
    assert [outcome(answer) for answer in await asyncio.gather(*asked)] == [200] * 12
    for batch in await service.batches():
        assert len({int(text) % 3 for text in batch.split()}) == 1


@pytest.mark.parametrize("leaving", [{1}, {0, 1, 2}])
async def test_ba05_who_left_while_queued_never_runs_and_frees_its_place(service: Service, leaving: set[int]) -> None:
    first = asyncio.ensure_future(service.post("/careless", "hold"))
    await service.until("/careless", running=1)
    waiting = [asyncio.ensure_future(service.post("/careless", f"t{n}")) for n in range(3)]
    await service.until("/careless", queued=3)
    for n in leaving:
        waiting[n].cancel()
    await service.until("/careless", queued=3 - len(leaving))
    await service.post("/open")
    await first
    await asyncio.gather(*waiting, return_exceptions=True)
    staying = " ".join(f"t{n}" for n in range(3) if n not in leaving)
    assert await service.batches() == ["hold", *([staying] if staying else [])]
    figures = await service.figures("/careless")
    assert (figures["cancelled"], figures["queue"]["pending"]) == (len(leaving), 0)


@pytest.mark.parametrize("how", ["fewer", "more", "none", "dict", "tuple", "generator", "ints"])
async def test_ba06_a_wrong_result_is_a_final_error_for_the_whole_batch(service: Service, how: str) -> None:
    answers = await asyncio.gather(*(service.post("/wrong", "a", "b", how=how) for _ in range(3)))
    for answer in answers:
        assert (answer.status_code, outcome(answer)) == (500, "ExecutorError")
        assert not answer.json()["error"]["retriable"]


async def test_ba07_a_result_that_cannot_be_written_fails_its_caller_alone(service: Service) -> None:
    answers = await service.while_busy("/careless", "a", "unserialisable", "b")
    assert [outcome(answer) for answer in answers] == [200, "ExecutorError", 200]


async def test_ba11_a_full_queue_refuses_before_it_reads_a_body(service: Service) -> None:
    first = asyncio.ensure_future(service.post("/careless", "hold"))
    await service.until("/careless", running=1)
    waiting = [asyncio.ensure_future(service.post("/careless", f"t{n}")) for n in range(63)]
    await service.until("/careless", pending=64, running=2)

    async def body() -> Any:
        raise AssertionError("the body was read")
        yield b""

    refused = await service.http.post("/careless", content=body(), headers={"content-length": "10"})
    assert (refused.status_code, outcome(refused)) == (503, "Overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert int(refused.headers["retry-after-ms"]) > 0
    await service.post("/open")
    assert {outcome(answer) for answer in await asyncio.gather(first, *waiting)} == {200}
    assert (await service.figures("/careless"))["queue"]["rejected"] == {"calls": 1, "bytes": 0}


async def test_ba11_bytes_bound_the_queue_too(service: Service) -> None:
    first = asyncio.ensure_future(service.post("/careless", "hold"))
    await service.until("/careless", running=1)
    refused = await service.post("/careless", "x" * 20_000)
    assert outcome(refused) == "Overloaded"

    async def unannounced() -> AsyncIterator[bytes]:
        for part in ('{"data": [{"text": "', "x" * 20_000, '"}]}'):
            yield part.encode()

    refused = await service.http.post("/careless", content=unannounced(), headers={"content-type": "application/json"})
    assert outcome(refused) == "Overloaded"
    assert (await service.figures("/careless"))["queue"]["rejected"] == {"calls": 0, "bytes": 2}
    await service.post("/open")
    assert outcome(await first) == 200


async def test_ba12_the_late_are_answered_504_and_never_run(service: Service) -> None:
    first = asyncio.ensure_future(service.post("/careless", "hold"))
    await service.until("/careless", running=1)
    late = await service.post("/careless", "late", headers={"x-request-timeout": "0.05"})
    assert (late.status_code, outcome(late)) == (504, "DeadlineExceeded")
    await service.post("/open")
    await first
    assert await service.batches() == ["hold"]
    assert (await service.figures("/careless"))["expired"] == 1


async def test_ba13_a_large_request_and_small_ones_all_get_their_own(service: Service) -> None:
    large = [f"large{n}" for n in range(100)]
    asked = [service.post("/careless", *large), *(service.post("/careless", f"small{n}") for n in range(31))]
    answers = [[doc["text"] for doc in answer.json()["data"]] for answer in await asyncio.gather(*asked)]
    assert answers == [large, *([f"small{n}"] for n in range(31))]


async def test_ba17_members_share_no_documents_with_each_other(service: Service) -> None:
    answers = await service.while_busy("/careless", "same", "same")
    assert len({answer.json()["data"][0]["id"] for answer in answers}) == 2


async def test_over_the_budget_is_413(service: Service) -> None:
    assert (await service.post("/budget", "x" * 21)).status_code == 413
    assert (await service.figures("/budget"))["over_budget"] == 1


async def test_an_empty_request_is_answered(service: Service) -> None:
    answer = await service.post("/careless")
    assert (answer.status_code, answer.json()["data"]) == (200, [])
