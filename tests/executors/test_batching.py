"""Batching as users ask for it: the decorator, what overrides it, and a route of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from docarray import BaseDoc, DocList
from fastapi import FastAPI

from jina_asgi import BatchFailed, DefinitionError, Deployment, DynamicBatching, Executor, dynamic_batching, requests
from jina_asgi.errors import DeadlineExceeded
from jina_asgi.executors.batching import batching_of
from jina_asgi.executors.executor import bind


class Text(BaseDoc):
    text: str


def metric(doc: Any) -> float:
    return len(doc.text)


class Model(Executor):
    @dynamic_batching(preferred_batch_size=8, timeout=100, custom_metric=metric)
    @requests(on="/a")
    def a_method(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/b")
    def b_method(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/one")
    def one(self, doc: Text) -> Text:
        return doc


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        ([], {"/a": 8}),
        ([{"a_method": {"preferred_batch_size": 16}}], {"/a": 16}),
        ([{"/a": {"preferred_batch_size": 16}}], {"/a": 16}),
        ([{"a": {"preferred_batch_size": 16}}], {"/a": 16}),
        ([{"a_method": {"preferred_batch_size": 2}, "/a": {"preferred_batch_size": 3}}], {"/a": 3}),
        ([{"/a": {"preferred_batch_size": 2}}, {"a_method": {"preferred_batch_size": 3}}], {"/a": 2}),
        ([{"/a": {"preferred_batch_size": 2}}, {"a": {"preferred_batch_size": 3}}], {"/a": 3}),
        ([{"/b": {}}], {"/a": 8, "/b": 4}),
        ([{"/a": {"use_dynamic_batching": False}}], {}),
        ([{"/a": {"use_dynamic_batching": False}}, {"/a": {"use_dynamic_batching": True}}], {"/a": 8}),
        ([{"/one": {"use_dynamic_batching": False}}], {"/a": 8}),
    ],
)
def test_options_merge_as_in_jina(layers: list[Any], sizes: dict[str, int]) -> None:
    found = batching_of(Model, bind(Model, {}), *layers)
    assert {name: settings.preferred_batch_size for name, settings in found.items()} == sizes


async def later(doc: Any) -> int:
    return 1


def test_what_is_not_overridden_stays() -> None:
    found = batching_of(Model, bind(Model, {}), {"/a": {"use_custom_metric": True, "preferred_batch_size": 2}})["/a"]
    assert (found.timeout, found.hints["cost"]) == (100, metric)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"/nowhere": {}}, "'/nowhere'; known: /a, /b, /one, a_method"),
        ({"/a": {"prefered_batch_size": 3}}, "did you mean 'preferred_batch_size'"),
        ({"/a": {"preferred_batch_size": 0}}, "preferred_batch_size"),
        ({"/b": {"use_custom_metric": True}}, "needs a custom_metric"),
        ({"/a": {"max_cost": 3}}, "go together"),
        ({"/a": {"use_custom_metric": True, "cost": "text", "max_cost": 3}}, "give one"),
        ({"/a": {"cost": "len:__class__", "max_cost": 3}}, "expected a field"),
        ({"/one": {}}, "let it take `docs`"),
        *(
            ({"/a": {option: later, **more}}, f"{option} is async; expected a function that answers at once")
            for option, more in {"cost": {"max_cost": 3}, "tenant": {}, "priority": {}, "custom_metric": {}}.items()
        ),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_written(options: Any, says: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        Deployment(Model, uses_dynamic_batching=options)
    assert says in str(raised.value)


def test_a_decorated_method_may_be_called_directly() -> None:
    docs = DocList[Text]([Text(text="a")])
    assert Model().a_method(docs) is docs


def test_a_decorator_with_an_unknown_option_says_so() -> None:
    with pytest.raises(DefinitionError, match="no option 'size'"):
        dynamic_batching(size=3)  # type: ignore[call-overload]


async def test_a_route_of_ones_own_batches() -> None:
    sizes = []

    async def embed_many(texts: list[str]) -> list[int]:
        sizes.append(len(texts))
        await asyncio.sleep(0.01)
        return [len(text) for text in texts]

    embed = DynamicBatching(embed_many, max_batch_size=32)
    app = FastAPI()

    @app.get("/embed")
    async def route(text: str) -> int:
        return await embed(text)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answers = await asyncio.gather(*(http.get("/embed", params={"text": "a" * n}) for n in range(20)))
    assert [answer.json() for answer in answers] == list(range(20))
    assert sum(sizes) == 20
    assert len(sizes) <= 5
    assert embed.status()["batch_sizes"] == {str(size): sizes.count(size) for size in sorted(set(sizes))}


async def test_a_function_fails_whom_it_may_concern() -> None:
    async def inverse(values: list[int]) -> list[float]:
        return [1 / value for value in values]

    careful = DynamicBatching(inverse, idempotent=True)
    answers = await asyncio.gather(*map(careful, [1, 0, 2]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [float, ZeroDivisionError, float]
    careless = DynamicBatching(inverse)
    answers = await asyncio.gather(*map(careless, [1, 0, 2]), return_exceptions=True)
    assert {type(answer) for answer in answers} == {BatchFailed}
    with pytest.raises(ZeroDivisionError):
        await careless(0)


async def test_a_timeout_drops_what_is_queued_and_keys_keep_apart() -> None:
    gate = asyncio.Event()
    ran = []

    async def slow(values: list[float]) -> list[float]:
        ran.append(values)
        await gate.wait()
        return values

    batched = DynamicBatching(slow, cost=float, max_cost=10)
    first = asyncio.ensure_future(batched(0))
    with pytest.raises(DeadlineExceeded):
        await batched(0.5, timeout=0.01)
    with pytest.raises(DeadlineExceeded):
        await batched(1, timeout=0.01)
    rest = [asyncio.ensure_future(batched(value, key=key)) for value, key in [(2, "a"), (3, "b"), (4, "a"), (9, "a")]]
    gate.set()
    assert await asyncio.gather(first, *rest) == [0, 2, 3, 4, 9]
    await batched.drain()
    assert ran == [[0.5, 0], [2, 4], [3], [9]]
    with pytest.raises(ValueError, match="could not convert"):
        await batched("much")  # type: ignore[arg-type]  # the mistake that the test is about


@pytest.mark.parametrize("options", [{"max_batch_size": 0}, {"concurrency": 0}, {"window": -1}])
def test_bounds_that_bound_nothing_are_refused(options: Any) -> None:
    async def same(values: list[int]) -> list[int]:
        return values

    with pytest.raises(DefinitionError):
        DynamicBatching(same, **options)
