"""Checks of what crosses from a caller to the Executor, and back, besides the documents: whatever a Runner is made of."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import orjson

from jina_asgi.errors import DeadlineExceeded, ExecutorError, InvalidDocs, Overloaded
from jina_asgi.testing.calling import (
    PATIENCE,
    Check,
    MakeRunner,
    Running,
    all_docs,
    call_to,
    first_docs,
    is_false,
    raised,
)
from jina_asgi.testing.executors import Probe, Text
from jina_asgi.types import Call, Context

#: Headers that reach the Executor at any server.
_PUBLIC = ("traceparent", "x-caller", "x-forwarded-for")
_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # a malformed one may be dropped
#: Headers that end at the server which they were sent to: secrets, and what concerns one connection or one body.
_PRIVATE = tuple(
    "accept accept-encoding authorization connection content-encoding content-length content-type cookie expect host"
    " keep-alive origin proxy-authorization proxy-connection sec-websocket-extensions sec-websocket-key"
    " sec-websocket-protocol sec-websocket-version te trailer transfer-encoding upgrade x-request-timeout".split()
)

#: Libraries whose generators do not close each other.
_CARELESS = ("httpx", "httpcore")


async def _seen(runner: Running, **context: Any) -> list[dict[str, Any]]:
    """What the Executor sees of the context of a call, and of that of a stream."""
    called = await runner.call("/context", [Text(text="")], context=Context(**context))
    streamed = call_to(runner.runner, "/context_stream", [Text(text="")], context=Context(**context))
    return [orjson.loads(docs.typed[0].text) for docs in (called.docs, await first_docs(runner.runner, streamed))]


async def the_executor_sees_the_callers_deadline(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        assert [facts["left"] for facts in await _seen(runner)] == [None, None]
        for seconds in (60.0, 3600.0):
            for facts in await _seen(runner, deadline=time.monotonic() + seconds):
                assert facts["left"] is not None
                assert seconds - PATIENCE < facts["left"] <= 1.01 * seconds  # a protocol may round, as gRPC does


async def secrets_and_headers_of_a_connection_end_at_the_server(make: MakeRunner) -> None:
    """The same server has the identity that `auth` found, and all headers; another one has neither that nor secrets."""
    async with Running(make(Probe)) as runner:
        sent = {name: f"callers-{name}" for name in (*_PUBLIC, *_PRIVATE)} | {"traceparent": _TRACE}
        for facts in await _seen(runner, headers=sent, identity="me"):
            arrived = {name for name, text in facts["headers"].items() if sent.get(name) == text}
            assert arrived == set(sent if facts["identity"] == "me" else _PUBLIC)


async def calls_of_streams_are_refused_and_streams_of_calls_give_their_docs(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        error = await raised(runner.call("/stream", [Text(text="a")]), InvalidDocs)
        assert "stream" in str(error)
        for endpoint, answer in (("/sync", "AB"), ("/one", "ba"), ("/nowhere", "default ab")):
            steps = await all_docs(runner.runner, call_to(runner.runner, endpoint, [Text(text="ab")]))
            assert [[doc.text for doc in docs.typed] for docs in steps] == [[answer]]
        two = [Text(text="a"), Text(text="b")]
        await raised(all_docs(runner.runner, call_to(runner.runner, "/sync", two)), InvalidDocs)
        try:
            steps = await all_docs(runner.runner, call_to(runner.runner, "/stream", two))
        except InvalidDocs:  # a Flow may stream the answers to both; none is dropped
            return
        assert {docs.typed[0].text for docs in steps} == {f"{name}{index}" for name in "ab" for index in range(3)}


async def an_unavailable_executor_says_when_to_return(make: MakeRunner) -> None:
    async with Running(make(Probe)) as runner:
        for seconds in ("7.25", "40"):
            error = await raised(runner.admitted("/busy", [Text(text=seconds)]), Overloaded)
            assert error.retry_after == float(seconds)
            stream = call_to(runner.runner, "/busy_stream", [Text(text=seconds)])
            error = await raised(all_docs(runner.runner, stream), Overloaded)
            assert error.retry_after == float(seconds)
            assert await runner.answers("/sync")  # only that call is refused


async def a_queue_that_is_full_in_bytes_refuses(make: MakeRunner) -> None:
    """Whatever else is said of sizes: the bytes of the request count, and a negative size is one that is not known."""
    large = "a" * 20_000
    async with Running(make(Probe, max_queue_bytes=15_000)) as runner:
        waiting = asyncio.ensure_future(runner.admitted("/wait", [Text(text="30")], size=500))
        await runner.saw("waiting")
        negative = runner.runner.admit("/sync", size=-1_000_000)

        async def fits() -> bool:
            try:
                await runner.admitted("/sync", [Text(text=large)], size=len(large))
            except Overloaded:
                return False
            return True

        await runner.until(lambda: is_false(fits()))
        assert len((await runner.admitted("/one", [Text(text="small")], size=500)).docs) == 1
        negative.close()
        waiting.cancel()
        await raised(waiting, asyncio.CancelledError)
        await runner.until(fits)  # alone it is admitted


async def no_stream_is_left_to_the_garbage_collector(make: MakeRunner) -> None:
    with _abandoned_generators() as abandoned:
        async with Running(make(Probe)) as runner:
            for endpoint in ("/stream", "/stream_sync"):
                await _leave_streams(runner, endpoint)
            await _leave_unread(runner)
        gc.collect()
    assert abandoned == []


async def _leave_streams(runner: Running, endpoint: str) -> None:
    """Reads a stream whole, and leaves others in every way."""

    def stream(text: str, context: Context | None = None, **parameters: Any) -> Call:
        return call_to(runner.runner, endpoint, [Text(text=text)], {"pause": 0.001, **parameters}, context)

    await all_docs(runner.runner, stream("whole"))
    await raised(all_docs(runner.runner, stream("failed", n=9, fail_at=2)), ExecutorError)
    late = Context(deadline=time.monotonic() + 0.2)
    await raised(all_docs(runner.runner, stream("late", late, n=10_000)), DeadlineExceeded)
    arrived = asyncio.Event()
    task = asyncio.ensure_future(all_docs(runner.runner, stream("cancelled", n=10_000), arrived))
    await asyncio.wait_for(arrived.wait(), PATIENCE)
    task.cancel()
    await raised(task, asyncio.CancelledError)
    await first_docs(runner.runner, stream("closed", n=10_000))
    await runner.saw(*(f"closed {text}" for text in ("whole", "failed", "late", "cancelled", "closed")))


async def _leave_unread(runner: Running) -> None:
    """Leaves a stream that has stopped in the middle of sending, as its documents are large and are not read."""
    made = list[int]()

    async def is_stalled() -> bool:
        made.append(len(await runner.seen()))
        return len(made) > 3 and made[-3] == made[-1]

    call = call_to(runner.runner, "/stream", [Text(text="unread")], {"n": 2_000, "size": 100_000})
    async with aclosing(runner.runner.stream(call)) as steps:
        await anext(steps)
        await runner.until(is_stalled)
    await runner.saw("closed unread")


@contextmanager
def _abandoned_generators() -> Iterator[list[str]]:
    """The names of asynchronous generators of this thread that the garbage collector has to close."""
    abandoned: list[str] = []
    hooks = sys.get_asyncgen_hooks()

    def finalized(generator: Any) -> None:
        if generator.ag_frame.f_globals["__name__"].partition(".")[0] not in _CARELESS:
            abandoned.append(generator.__qualname__)
        if hooks.finalizer is not None:
            hooks.finalizer(generator)

    sys.set_asyncgen_hooks(hooks.firstiter, finalized)
    try:
        yield abandoned
    finally:
        sys.set_asyncgen_hooks(*hooks)


crossing_checks: tuple[Check, ...] = (
    the_executor_sees_the_callers_deadline,
    secrets_and_headers_of_a_connection_end_at_the_server,
    calls_of_streams_are_refused_and_streams_of_calls_give_their_docs,
    an_unavailable_executor_says_when_to_return,
    a_queue_that_is_full_in_bytes_refuses,
    no_stream_is_left_to_the_garbage_collector,
)
