"""Calls through the framed protocol: what crosses, what comes back, and how each ends exactly once."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest
from docarray import BaseDoc

from jina_asgi.documents.codec import codec
from jina_asgi.documents.schemas import schema_of
from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    ExecutorInputError,
    InvalidDocs,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    ReplicaDied,
    TooLarge,
    UnknownEndpoint,
)
from jina_asgi.protocols.frames._layout import FRAME_LIMIT
from jina_asgi.types import EMPTY, Call, Context, Result, Step
from tests.doubles.frames import CALLED, ENDPOINTS, Double, a_call, served, texts, values

OVER = pytest.mark.parametrize("over", ["pipe", "socket"])


@OVER
async def test_a_call_is_answered_with_docs_in_order_results_and_the_trail(over: str) -> None:
    trail = (Step("a", 1.0, 2.0), Step("b", 2.0, 3.5, "ValueError"))

    async def answer(call: Call) -> Result:
        return Result(texts(*reversed(values(call.docs))), {"a": {"n": 3, "deep": [1, None]}}, trail)

    async with served(Double(answer), over) as (client, _):
        result = await client.call(a_call("x", "y", "z"))

    assert values(result.docs) == ["z", "y", "x"]
    assert result.results == {"a": {"n": 3, "deep": [1, None]}}
    assert trail == result.trail


@OVER
async def test_a_thousand_calls_at_once_each_get_their_own_answer(over: str) -> None:
    async with served(Double(), over) as (client, _):
        results = await asyncio.gather(*(client.call(a_call(str(number))) for number in range(1000)))

    assert [[str(number)] for number in range(1000)] == [values(result.docs) for result in results]


async def test_docs_pass_both_ways_without_being_decoded() -> None:
    typed = []

    async def answer(call: Call) -> Result:
        typed.append(call.docs.is_typed)
        return Result(call.docs)

    async with served(Double(answer)) as (client, _):
        call = a_call("x")
        result = await client.call(call)

    assert typed == [False]
    assert not result.docs.is_typed
    assert list(call.docs.encoded) == list(result.docs.encoded)


async def test_the_context_parameters_and_sources_cross() -> None:
    seen: list[Call] = []

    async def answer(call: Call) -> Result:
        seen.append(call)
        return Result(call.docs)

    context = Context(
        "id-1",
        headers={"authorization": "x"},
        deadline=time.monotonic() + 60,
        identity={"user": 1},
        tenant="t",
        priority=-3,
    )
    sources = (("left", texts("l")), ("empty", texts()), ("right", texts("r", "s")))
    async with served(runner := Double(answer)) as (client, _):
        await client.call(Call("/call", texts("d"), {"k": [1, "v"]}, context, sources))

    (call,) = seen
    assert values(call.docs) == ["d"]
    assert call.parameters == {"k": [1, "v"]}
    assert [(n, values(d)) for n, d in call.sources] == [("left", ["l"]), ("empty", []), ("right", ["r", "s"])]
    got = call.context
    assert (got.request_id, got.headers, got.identity) == ("id-1", {"authorization": "x"}, {"user": 1})
    assert (got.tenant, got.priority) == ("t", -3)
    assert got.deadline == pytest.approx(context.deadline, abs=1)
    ((endpoint, size),) = runner.admitted
    assert endpoint == "/call"
    assert size > 10


async def test_where_the_peer_has_admitted_a_call_it_takes_no_place_here() -> None:
    runner = Double(refuse=Overloaded("the queue is full"))
    async with served(runner, admits=False) as (client, _):
        assert values((await client.call(a_call("a"))).docs) == ["a"]


async def test_an_empty_context_crosses_as_one() -> None:
    seen: list[Call] = []

    async def answer(call: Call) -> Result:
        seen.append(call)
        return Result(call.docs)

    async with served(Double(answer)) as (client, _):
        await client.call(Call("/call", texts()))

    (call,) = seen
    context = call.context
    assert (call.parameters, context.headers, context.deadline, context.identity) == (EMPTY, EMPTY, None, None)


@pytest.mark.parametrize(
    "error",
    [
        InvalidDocs("no", [{"type": "missing", "loc": [0, "text"], "msg": "required", "input": {}}]),
        ExecutorInputError("too long"),
        ExecutorError("failed", executor="Encoder", endpoint="/call"),
        UnknownEndpoint("none"),
        DeadlineExceeded("late"),
        ReplicaDied("gone", retry_after=4.0),
        ProtocolError("of another connection further on"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_crosses_with_its_type_message_and_facts(error: Any) -> None:
    async def fail(_: Call) -> Result:
        raise error

    async with served(Double(fail)) as (client, _):
        for _ in range(2):  # the connection goes on
            with pytest.raises(type(error)) as caught:
                await client.call(a_call("x"))
            assert type(error) is type(caught.value)
            assert (error.message, error.facts()) == (caught.value.message, caught.value.facts())


async def test_an_error_that_is_not_ours_is_logged_and_crosses_as_an_executor_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: Call) -> Result:
        raise ZeroDivisionError("by nothing")

    async with served(Double(fail)) as (client, _):
        with pytest.raises(ExecutorError, match="ZeroDivisionError: by nothing"):
            await client.call(a_call("x"))

    assert [r.exc_info[0].__name__ for r in caplog.records if r.exc_info and r.exc_info[0]] == ["ZeroDivisionError"]


async def test_a_refusal_crosses_and_nothing_runs() -> None:
    async with served(Double(refuse=Overloaded("full", retry_after=7.0))) as (client, _):
        with pytest.raises(Overloaded) as caught:
            await client.call(a_call("x"))

    assert caught.value.retry_after == 7.0


async def test_the_endpoints_equal_the_servers_and_unknown_ones_are_refused() -> None:
    async with served(Double()) as (client, _):
        assert client.endpoints == ENDPOINTS
        with pytest.raises(UnknownEndpoint):
            await client.call(a_call("x", endpoint="/absent"))


async def test_default_takes_what_no_other_endpoint_answers() -> None:
    default = replace(CALLED, name="/default")

    async with served(Double(endpoints={"/default": default})) as (client, _):
        assert values((await client.call(a_call("x", endpoint="/anything"))).docs) == ["x"]


class Text(BaseDoc):
    """The class behind an endpoint, at hand on one side only or on both."""

    text: str


async def test_docs_are_dicts_unless_the_endpoints_with_their_classes_are_given() -> None:
    schema = schema_of(Text)
    endpoints = {"/call": replace(CALLED, input=schema, output=schema)}
    call = Call("/call", codec(schema).docs([Text(text="x")]))

    async with served(Double(endpoints=endpoints)) as (client, _):
        (plain,) = (await client.call(call)).docs.typed
    async with served(Double(endpoints=endpoints), endpoints=endpoints) as (client, _):
        assert endpoints is client.endpoints
        (typed,) = (await client.call(call)).docs.typed

    assert isinstance(plain, dict)
    assert isinstance(typed, Text)
    assert (plain["text"], "x") == (typed.text, "x")


async def test_given_endpoints_must_be_those_that_are_served() -> None:
    other = {**ENDPOINTS, "/call": replace(CALLED, idempotent=True), "/more": replace(CALLED, name="/more")}

    with pytest.raises(ProtocolError, match="/call, /more differ"):
        async with served(Double(), endpoints=other):
            raise AssertionError("not reached")


@pytest.mark.parametrize("docs", [0, 1, 5000])
@OVER
async def test_any_number_of_docs_crosses(docs: int, over: str) -> None:
    async with served(Double(), over) as (client, _):
        result = await client.call(a_call(*map(str, range(docs))))

    assert list(map(str, range(docs))) == values(result.docs)


@OVER
async def test_large_docs_cross_in_pieces_beside_small_ones(over: str) -> None:
    large = [letter * 3_000_000 for letter in "abcd"]

    async with served(Double(), over) as (client, _):
        results = await asyncio.gather(*(client.call(a_call(text, "small")) for text in large))

    assert [[text, "small"] for text in large] == [values(result.docs) for result in results]


@pytest.mark.parametrize(
    "call",
    [
        Call("/call", texts(), {"k": object()}),
        Call("/call", texts(), {"k": 2**70}),
        Call("/call", texts(), {"k": "\ud800"}),
        Call("/call", texts(), context=Context(identity=object())),
        Call("/call", texts(), context=Context(tenant="\ud800")),
    ],
)
async def test_what_cannot_cross_fails_its_own_call_before_it_is_sent(call: Call) -> None:
    async with served(runner := Double()) as (client, _):
        with pytest.raises(InvalidRequest):
            await client.call(call)
        assert values((await client.call(a_call("x"))).docs) == ["x"]

    assert len(runner.admitted) == 1


@pytest.mark.parametrize(
    "call",
    [
        Call("/call", texts(), context=Context(headers={"a": b"bytes"})),  # type: ignore[dict-item]
        Call("/call", texts(), context=Context(tenant=None)),  # type: ignore[arg-type]
    ],
)
async def test_a_context_of_wrong_types_fails_its_own_call_on_the_other_side(call: Call) -> None:
    async with served(Double()) as (client, _):
        with pytest.raises(InvalidRequest):
            await client.call(call)
        assert values((await client.call(a_call("x"))).docs) == ["x"]


@pytest.mark.parametrize("results", [{"a": object()}, {"a": 2**70}])
async def test_results_that_cannot_cross_are_the_executors_fault(results: dict[str, Any]) -> None:
    async def answer(call: Call) -> Result:
        return Result(call.docs, results)

    async with served(Double(answer)) as (client, _):
        with pytest.raises(ExecutorError, match="results cannot cross"):
            await client.call(a_call("x"))


async def test_docs_that_cannot_be_encoded_are_the_executors_fault() -> None:
    async def answer(_: Call) -> Result:
        return Result(codec(CALLED.output).docs([{"text": object()}]))

    async with served(Double(answer)) as (client, _):
        with pytest.raises(ExecutorError, match="cannot be encoded"):
            await client.call(a_call("x"))


async def test_a_call_or_result_over_the_limit_fails_alone() -> None:
    limit = 1 << 18

    async def grow(call: Call) -> Result:
        return Result(texts("y" * limit)) if values(call.docs) == ["grow"] else Result(call.docs)

    async with served(Double(grow), limit=limit) as (client, server):
        server.send_limit = limit
        with pytest.raises(TooLarge):
            await client.call(a_call("grow"))
        with pytest.raises(TooLarge):
            await client.call(a_call("x" * FRAME_LIMIT))
        assert client._connection is not None
        assert client._connection.state.waiting == 0
        assert values((await client.call(a_call("x"))).docs) == ["x"]


async def test_a_callers_context_variables_stay_on_its_side() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    async def answer(call: Call) -> Result:
        return Result(texts(variable.get()))

    async with served(Double(answer)) as (client, _):
        variable.set("set")
        assert values((await client.call(a_call("x"))).docs) == ["unset"]
