"""The contract of every Runner, one check for each rule. Every Runner has to pass all of them."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from jina_asgi.documents.codec import codec
from jina_asgi.errors import (
    DeadlineExceeded,
    ExecutorError,
    ExecutorInputError,
    InvalidDocs,
    JinaASGIError,
    NotReady,
    Overloaded,
    Unavailable,
    UnknownEndpoint,
)
from jina_asgi.serving.deployment import Deployment
from jina_asgi.testing.calling import (
    Check,
    MakeRunner,
    Running,
    all_docs,
    call_to,
    first_docs,
    is_false,
    output_of,
    raised,
    rest_of,
    stream_checks,
)
from jina_asgi.testing.crossing import crossing_checks
from jina_asgi.testing.executors import NoDefault, Probe, Tensor, Text, Vector
from jina_asgi.types import Call, Context, Result

_checks: list[Check] = []


def _check(function: Check) -> Check:
    _checks.append(function)
    return function


@_check
async def results_keep_the_order_of_the_docs(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        result = await runner.call("/sync", [Text(text=str(index)) for index in range(100)])
        assert [doc.text for doc in result.docs.typed] == [str(index) for index in range(100)]
        assert type(result.docs.typed[0]) is Text


@_check
async def every_kind_of_endpoint_answers(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        assert await runner.texts("/one", "ab", "cd") == ["ba", "dc"]
        assert await runner.texts("/in_place", "a") == ["a!"]
        assert await runner.texts("/default", "a") == ["default a"]
        assert await runner.texts("/sync") == []


@_check
async def a_dict_is_a_result_beside_the_docs(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        result = await runner.call("/dict", [Text(text="a"), Text(text="b")])
        assert [doc.text for doc in result.docs.typed] == ["a", "b"]
        assert list(result.results.values()) == [{"n": 2}]


@_check
async def tensors_bytes_and_nested_docs_arrive_as_they_were(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        sent = Vector(vector=np.arange(4, dtype=np.float32), blob=b"\x00\xff", inner=Text(text="in"))
        [doc] = (await runner.call("/vector", [sent], {"by": 2})).docs.typed
        assert doc.vector.dtype == np.float32
        assert doc.vector.tolist() == [0.0, 2.0, 4.0, 6.0]
        assert (doc.id, doc.blob, doc.inner.text) == (sent.id, b"\x00\xff", "in")


@_check
async def encoded_docs_are_answered_like_typed_ones(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        reader = codec(runner.runner.endpoints["/sync"].input)
        docs = reader.encoded(reader.encode([Text(text="a")]))
        result = await runner.runner.call(Call("/sync", docs))
        assert [codec(output_of("/sync")).decode([bytes(b)])[0].text for b in result.docs.encoded] == ["A"]


@_check
async def docs_that_do_not_fit_are_refused_by_name(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        reader = codec(runner.runner.endpoints["/sync"].input)
        wrong = reader.encoded([reader.encode([Text(text="a")])[0], b"\x81\xa4text\x05"])
        error = await raised(runner.runner.call(Call("/sync", wrong)), InvalidDocs)
        assert error.errors[0]["loc"][0] == 1


@_check
async def large_tensors_come_back_whole(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        arrays = [np.arange(count, dtype=np.float32) for count in (1 << 18, 4, 1 << 15)]
        result = await runner.call("/any", [Tensor(tensor=array) for array in arrays])
        for array, doc in zip(arrays, result.docs.typed, strict=True):
            tensor = doc["tensor"] if isinstance(doc, dict) else doc.tensor
            assert np.array_equal(tensor, array * 2)
            tensor[0] = 1.0  # the caller owns it


@_check
async def parameters_and_context_arrive(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        context = Context("abc", headers={"x-caller": "me"}, deadline=time.monotonic() + 60)
        result = await runner.call("/parameters", [], {"n": 3.0, "f": 0.5, "deep": [{"m": 2.0}]}, context)
        facts = [doc.text for doc in result.docs.typed]
        assert facts == ["{'deep': [{'m': 2}], 'f': 0.5, 'n': 3}", "abc", "{'x-caller': 'me'}", "True"]


@_check
async def parameters_that_do_not_fit_are_refused(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        call = runner.call("/vector", [Vector(vector=np.zeros(4))], {"by": "many"})
        error = await raised(call, InvalidDocs)
        assert error.errors[0]["loc"] == ["parameters", "by"]


@_check
async def a_call_runs_only_inside_the_lifespan(make: MakeRunner) -> None:
    runner = make(Probe)
    await raised(runner.call(call_to(runner, "/sync", [Text(text="a")])), NotReady)
    async with runner.lifespan():
        await runner.call(call_to(runner, "/sync", [Text(text="a")]))
    await raised(runner.call(call_to(runner, "/sync", [Text(text="a")])), NotReady)
    await raised(first_docs(runner, call_to(runner, "/stream", [Text(text="a")])), NotReady)
    try:
        runner.admit("/sync")
    except NotReady:
        return
    raise AssertionError("admit gave a ticket outside the lifespan")


@_check
async def the_lifespan_may_be_entered_again(make: MakeRunner) -> None:
    runner = make(Probe)
    for _ in range(2):
        async with Running(runner) as running:
            assert await running.texts("/sync", "a") == ["A"]


@_check
async def an_executor_that_fails_to_load_fails_the_lifespan(make: MakeRunner) -> None:
    try:
        async with make(Probe, uses_with={"fail": True}).lifespan():
            pass
    except Exception as error:
        assert "asked to fail" in str(error) or "asked to fail" in str(error.__cause__)
    else:
        raise AssertionError("the lifespan started")


@_check
async def endpoints_look_equal_from_both_sides(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        assert dict(runner.runner.endpoints) == dict(Deployment(Probe).endpoints)


@_check
async def an_unknown_endpoint_goes_to_default_or_is_an_error(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        assert await runner.texts("/nowhere", "a") == ["default a"]
    async with Running(make(NoDefault)) as runner:
        docs = codec(Deployment(NoDefault).endpoints["/only"].input).docs([Text(text="a")])
        await raised(runner.runner.call(Call("/nowhere", docs)), UnknownEndpoint)


@_check
async def the_executors_own_errors_are_wrapped_once(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        error = await raised(runner.call("/raise", [Text(text="secret")]), ExecutorError)
        assert "ValueError" in str(error)
        assert (error.executor, error.endpoint) == ("Probe", "/raise")
        assert not isinstance(error.__cause__, ExecutorError)
        refused = await raised(runner.call("/refuse", [Text(text="too short")]), ExecutorInputError)
        assert str(refused) == "too short"
        wrong = await raised(runner.call("/wrong", [Text(text="a")]), ExecutorError)
        assert "expected documents of Text" in str(wrong)


@_check
async def leaving_by_exit_is_one_calls_failure(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        await raised(runner.call("/exit", [Text(text="a")]), JinaASGIError)
        await runner.until(lambda: runner.answers("/sync"))


@_check
async def one_callers_failure_is_not_anothers(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        calls = [runner.call("/raise" if i % 3 == 0 else "/one", [Text(text=f"{i:02}")]) for i in range(30)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for index, answer in enumerate(answers):
            if index % 3 == 0:
                assert isinstance(answer, ExecutorError)
            else:
                assert isinstance(answer, Result)
                assert answer.docs.typed[0].text == f"{index:02}"[::-1]


@_check
async def a_deadline_is_kept(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for endpoint in ("/wait", "/block"):
            started = time.monotonic()
            late = Context(deadline=time.monotonic() + 0.1)
            await raised(runner.call(endpoint, [Text(text="30")], context=late), DeadlineExceeded)
            assert time.monotonic() - started < 5
        await runner.saw("cancelled", "notified")
        past = Context(deadline=time.monotonic() - 1)
        await raised(runner.call("/sync", [Text(text="late")], context=past), DeadlineExceeded)
        late = Context(deadline=time.monotonic() + 0.3)
        call = call_to(runner.runner, "/stream", [Text(text="s")], {"n": 1000, "pause": 0.05}, late)
        await raised(all_docs(runner.runner, call), DeadlineExceeded)
        await runner.saw("closed s")
        assert "ran late" not in await runner.seen()


@_check
async def the_executor_learns_that_a_call_is_cancelled(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for endpoint, begun, ended in (("/wait", "waiting", "cancelled"), ("/block", "blocking", "notified")):
            task = asyncio.ensure_future(runner.call(endpoint, [Text(text="30")]))
            await runner.saw(begun)
            task.cancel()
            await raised(task, asyncio.CancelledError)
            await runner.saw(ended)


@_check
async def queued_work_that_is_cancelled_never_starts(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        blocking = asyncio.ensure_future(runner.call("/block", [Text(text="30")]))
        await runner.saw("blocking")
        queued = asyncio.ensure_future(runner.call("/sync", [Text(text="queued")]))
        for task in (queued, blocking):
            await asyncio.sleep(0)
            task.cancel()
            await raised(task, asyncio.CancelledError)
        await runner.texts("/sync", "after")
        seen = await runner.seen()
        assert "ran after" in seen
        assert "ran queued" not in seen


@_check
async def leaving_the_lifespan_finishes_what_runs(make: MakeRunner) -> None:
    runner = make(Probe)
    async with Running(runner) as running:
        calls = [asyncio.ensure_future(running.call(name, [Text(text="0.3")])) for name in ("/wait", "/block")]
        await running.saw("waiting", "blocking")
    assert [result.docs.typed[0].text for result in await asyncio.gather(*calls)] == ["0.3", "0.3"]


@_check
async def leaving_the_lifespan_stops_what_outlasts_the_grace_period(make: MakeRunner) -> None:
    runner = make(Probe, grace=0.1)
    async with Running(runner) as running:
        task = asyncio.ensure_future(running.call("/wait", [Text(text="30")]))
        stream = runner.stream(call_to(runner, "/stream", [Text(text="s")], {"n": 10_000}))
        await anext(stream)
        await running.saw("waiting")
        started = time.monotonic()
    assert time.monotonic() - started < 5
    await raised(task, Unavailable)
    await raised(rest_of(stream), Unavailable)
    await stream.aclose()


@_check
async def a_full_queue_refuses_and_says_when_to_return(make: MakeRunner) -> None:
    async with Running(make(Probe, max_queue=1)) as runner:
        refused: list[Overloaded] = []

        async def tried(on: str, text: str) -> bool:
            try:
                await runner.admitted(on, [Text(text=text)])
            except Overloaded as error:
                refused.append(error)
                return False
            return True

        waiting = asyncio.ensure_future(runner.until(lambda: tried("/wait", "0.5")))
        await runner.until(lambda: is_false(tried("/sync", "a")))
        await waiting
        assert min(error.retry_after for error in refused) > 0
        assert await tried("/sync", "b")


@_check
async def a_ticket_may_be_closed_twice(make: MakeRunner) -> None:
    async with Running(make(Probe, max_queue=1)) as runner:
        ticket = runner.runner.admit("/sync", size=10)
        ticket.close()
        ticket.close()
        assert len((await runner.admitted("/sync", [Text(text="a")])).docs) == 1


#: Every check of the contract.
runner_conformance: tuple[Check, ...] = (*_checks, *stream_checks, *crossing_checks)
