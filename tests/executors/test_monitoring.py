"""`@monitor` and `self.monitor`: the figures of an Executor's own parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydantic import BaseModel

from jina_asgi import Deployment, Executor, JinaASGI, dynamic_batching, monitor, requests
from jina_asgi.executors.decorators import timings
from jina_asgi.testing import client


class Text(BaseModel):
    text: str


class Watched(Executor):
    @requests(on="/batch")
    @monitor(name="batching", documentation="the whole batch")
    def batch(self, docs: list[Text]) -> list[Text]:
        return [self.cleaned(doc) for doc in docs]

    @monitor
    def cleaned(self, doc: Text) -> Text:
        return Text(text=doc.text.strip())

    @monitor()
    @requests(on="/one")
    async def one(self, doc: Text) -> Text:
        with self.monitor("thinking"):
            return doc

    @monitor()
    @requests(on="/steps")
    def steps(self, doc: Text) -> Iterator[Text]:
        yield doc
        yield doc

    @monitor()
    @requests(on="/later")
    async def later(self, doc: Text) -> AsyncIterator[Text]:
        yield doc

    @requests(on="/fail")
    @monitor()
    async def fail(self, doc: Text) -> Text:
        raise ValueError("no")


async def monitored(http: Any) -> dict[str, Any]:
    status = (await http.get("/-/status")).json()
    found: dict[str, Any] = status["deployments"]["executor"].get("monitored", {})
    return found


async def test_the_status_has_how_often_and_how_long() -> None:
    async with client(JinaASGI(Watched, wait_ready=True)) as http:
        assert await monitored(http) == {}
        for _ in range(2):
            await http.post("/batch", json={"data": [{"text": " a "}, {"text": "b"}]})
        await http.post("/one", json={"data": {"text": "a"}})
        found = await monitored(http)
    assert {name: figures["count"] for name, figures in found.items()} == {
        "cleaned_seconds": 4,
        "batching": 2,
        "one_seconds": 1,
        "thinking": 1,
    }
    assert found["batching"]["documentation"] == "the whole batch"
    assert found["batching"]["seconds"] >= found["batching"]["longest"] >= found["cleaned_seconds"]["longest"] > 0


async def test_a_stream_is_one() -> None:
    async with client(JinaASGI(Watched, wait_ready=True)) as http:
        for path in ("/steps", "/later"):
            assert (await http.post(path, json={"data": {"text": "a"}})).text.count("event: update") in (1, 2)
        found = await monitored(http)
    assert {name: figures["count"] for name, figures in found.items()} == {"steps_seconds": 1, "later_seconds": 1}


async def test_what_fails_counts_too() -> None:
    async with client(JinaASGI(Watched, wait_ready=True)) as http:
        assert (await http.post("/fail", json={"data": {"text": "a"}})).status_code == 500
        assert (await monitored(http))["fail_seconds"]["count"] == 1


async def test_a_watched_method_is_what_it_was() -> None:
    kinds = {name: method.endpoint.kind for name, method in Watched.methods.items()}
    assert kinds == {"/batch": "batch", "/one": "single", "/steps": "stream", "/later": "stream", "/fail": "single"}

    class Batched(Executor):
        @monitor()
        @dynamic_batching(preferred_batch_size=2)
        @requests
        def run(self, docs: list[Text]) -> list[Text]:
            """Run."""
            return docs

    assert Batched.methods["/default"].endpoint.description == "Run."
    async with Deployment(uses=Batched) as deployment:
        assert deployment.batched == ["/default"]
        assert await deployment.call("/default", [Text(text="a")]) == [Text(text="a")]


def test_an_executor_made_by_hand_counts_for_itself() -> None:
    first, second = Watched(), Watched()
    first.batch([Text(text="a")])
    assert timings(first)["batching"]["count"] == 1
    assert timings(second) == {}
