"""The asynchronous Client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
from docarray import DocList

from jina_asgi import Client, JinaASGI
from jina_asgi.excepts import BadClientInput, BadServer
from tests.doubles.clients import Model, Text
from tests.doubles.uvicorn_server import Serving, serving

TEXTS = DocList[Text]
AB = [Text(id="1", text="a"), Text(id="2", text="b")]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Any]:
    asgi = JinaASGI(Model, wait_ready=True)
    async with asgi.lifespan(), serving(asgi) as port, Client(port=port, protocol="http", asyncio=True) as client:
        yield client


def numbers(count: int) -> Iterator[Text]:
    return (Text(text=str(index)) for index in range(count))


async def all_of(results: AsyncGenerator[Any, None]) -> list[Any]:
    async with aclosing(results):
        return [result async for result in results]


async def test_each_request_gives_its_documents(client: Any) -> None:
    answers = await all_of(client.post("/upper", AB * 2, request_size=2, return_type=TEXTS))
    assert [["A", "B"], ["A", "B"]] == [[doc.text for doc in docs] for docs in answers]
    assert ["A"] == [doc.text for doc in await all_of(client.post("/upper", AB[0], return_type=Text))]
    assert await client.is_flow_ready()


async def test_inputs_may_be_an_async_generator_which_is_closed(client: Any) -> None:
    closed = []

    async def letters() -> AsyncGenerator[Text, None]:
        try:
            for index in range(1_000_000):
                yield Text(text=str(index))
        finally:
            closed.append(True)

    async with aclosing(client.post("/upper", letters(), request_size=1, prefetch=2)) as answers:
        await anext(answers)
    assert [True] == closed


@pytest.mark.parametrize("in_order", [True, False])
async def test_inputs_are_read_no_further_than_the_requests_that_may_be_open(client: Any, in_order: bool) -> None:
    read = []

    def recorded() -> Iterator[Text]:
        for doc in numbers(20):
            read.append(doc.text)
            yield doc

    options = {"parameters": {"parties": 4}, "request_size": 1, "prefetch": 3, "results_in_order": in_order}
    asked = asyncio.create_task(all_of(client.post("/meet", recorded(), **options)))
    # The fourth party opens the gate: until it comes from elsewhere, three requests are open, and no more is read.
    while len(read) < 3:
        await client.is_flow_ready()
    for _ in range(5):
        await client.is_flow_ready()
    assert 3 == len(read)
    await all_of(client.post("/meet", AB[0], parameters={"parties": 4}))
    assert 20 == len(await asked)


async def test_answers_come_while_a_slow_generator_is_awaited(client: Any) -> None:
    answered = asyncio.Event()

    async def waits_for_its_own_answer() -> AsyncGenerator[Text, None]:
        yield AB[0]
        await asyncio.wait_for(answered.wait(), 20)
        yield AB[1]

    got = []
    async with aclosing(client.post("/upper", waits_for_its_own_answer(), request_size=1, return_type=Text)) as docs:
        async for doc in docs:
            got.append(doc.text)
            answered.set()
    assert ["A", "B"] == got


async def test_answers_come_in_order_where_that_is_asked(client: Any) -> None:
    docs = [Text(text="first"), *numbers(5), Text(text="last")]
    ordered = await all_of(client.post("/first_last", docs, request_size=1, results_in_order=True, return_type=Text))
    assert [doc.text for doc in docs] == [doc.text for doc in ordered]


async def test_leaving_early_cancels_what_is_open(client: Any) -> None:
    docs = [Text(text="0"), Text(text="1")]
    async with aclosing(client.post("/odd_fails", docs, request_size=1, results_in_order=True)) as answers:
        await anext(answers)
    async with asyncio.timeout(5):
        task = asyncio.create_task(all_of(client.post("/wait", AB[0])))
        await client.is_flow_ready()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_a_generator_raises_is_raised_and_cancels_the_rest(client: Any) -> None:
    def broken() -> Iterator[Text]:
        yield AB[0]
        raise KeyError("mine")

    async with asyncio.timeout(10):
        with pytest.raises(KeyError, match="mine"):
            await all_of(client.post("/wait", broken(), request_size=1))


async def test_errors_raise_or_go_to_callbacks_or_are_passed_over(client: Any) -> None:
    with pytest.raises(BadServer, match="1 is odd"):
        await all_of(client.post("/odd_fails", numbers(2), request_size=1))
    failed: list[Any] = []
    done = await all_of(
        client.post("/odd_fails", numbers(4), on_error=failed.append, request_size=1, return_responses=True)
    )
    assert (4, 2) == (len(done), len(failed))
    kept = await all_of(client.post("/odd_fails", numbers(4), continue_on_error=True, request_size=1))
    assert 2 == len(kept)


async def test_a_stream_takes_parameters_and_closing_it_stops_the_server(client: Any) -> None:
    docs = await all_of(client.stream_doc("/count", AB[0], {"n": 4}, return_type=Text))
    assert ["a0", "a1", "a2", "a3"] == [doc.text for doc in docs]
    async with aclosing(client.stream_doc("/count", AB[0], {"n": 1_000_000})) as steps:
        assert "a0" == (await anext(steps)).text
    [closed] = await all_of(client.post("/closed", AB[0], return_type=Text))
    assert int(closed.text) < 999_999


async def test_a_stream_that_is_late_ends_in_a_connection_error(client: Any) -> None:
    with pytest.raises(ConnectionError, match="deadline"):
        await all_of(client.stream_doc("/count", AB[0], {"n": 10_000_000}, timeout=0.3))


async def test_a_stream_is_asked_with_one_document(client: Any) -> None:
    with pytest.raises(BadClientInput, match="one document"):
        await all_of(client.stream_doc("/count", AB))


def test_one_client_serves_loop_after_loop() -> None:
    with Serving(JinaASGI(Model, wait_ready=True)) as served:
        client = Client(port=served.port, protocol="http", asyncio=True)

        async def ask() -> list[Any]:
            answers = await all_of(client.post("/upper", AB[0], return_type=Text))
            await client.close()
            return answers

        assert ["A", "A"] == [asyncio.run(ask())[0].text for _ in range(2)]


async def test_an_application_in_this_process_is_asked_without_a_server() -> None:
    asgi = JinaASGI(Model, wait_ready=True)
    async with asgi.lifespan(), Client(app=asgi, asyncio=True) as client:
        assert ["A"] == [doc.text for doc in await all_of(client.post("/upper", AB[0], return_type=Text))]
