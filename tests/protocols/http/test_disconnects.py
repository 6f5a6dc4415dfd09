"""The watch over clients, alone: whom it listens to, and what is left of a request that was cancelled for it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel

from jina_asgi import Executor, JinaASGI, requests
from jina_asgi.protocols.http.exchange import INTERVAL, DisconnectMonitor
from jina_asgi.runners.local.threads import ExecutorThreads


class Number(BaseModel):
    value: int = 0


async def never() -> Any:
    await asyncio.Event().wait()


async def gone() -> Any:
    return {"type": "http.disconnect"}


async def test_who_is_answered_soon_is_never_listened_to() -> None:
    asked = []

    async def receive() -> Any:
        asked.append(True)
        return await never()

    watch = DisconnectMonitor()
    for _ in range(100):
        watch.end(watch.begin(receive, asyncio.get_running_loop()))
    lasting = watch.begin(receive, asyncio.get_running_loop())
    await asyncio.sleep(3 * INTERVAL)  # the time that it watches is what is tested
    watch.end(lasting)
    assert 1 == len(asked)


async def test_requests_share_one_timer() -> None:
    loop = asyncio.get_running_loop()
    watch = DisconnectMonitor()
    before = len(loop._scheduled)  # type: ignore[attr-defined]  # asyncio's own heap of timers
    for _ in range(100):
        watch.end(watch.begin(never, asyncio.get_running_loop()))
    assert 1 == len(loop._scheduled) - before  # type: ignore[attr-defined]


async def test_a_request_whose_client_left_is_cancelled_and_goes_on_uncancelled() -> None:
    watch = DisconnectMonitor()
    watched = watch.begin(gone, asyncio.get_running_loop())
    try:
        await never()
    except asyncio.CancelledError:
        watch.end(watched)
    task = asyncio.current_task()
    assert task is not None
    assert [True, 0] == [watched.gone, task.cancelling()]
    async with asyncio.timeout(5.0):
        await asyncio.sleep(0)


async def test_who_leaves_with_the_answer_is_not_cancelled() -> None:
    watch = DisconnectMonitor()
    watched = watch.begin(gone, asyncio.get_running_loop())
    watched.answered = True
    await asyncio.sleep(3 * INTERVAL)
    watch.end(watched)
    assert not watched.gone


async def test_a_receive_that_fails_ends_only_the_watching() -> None:
    async def receive() -> Any:
        raise RuntimeError("no receive here")

    watch = DisconnectMonitor()
    watched = watch.begin(receive, asyncio.get_running_loop())
    await asyncio.sleep(3 * INTERVAL)
    watch.end(watched)
    assert not watched.gone


def test_each_thread_watches_over_its_own_loop() -> None:
    watch, both = DisconnectMonitor(), threading.Barrier(2)
    cancelled: list[str] = []

    async def serve() -> None:
        both.wait(5.0)
        watched = watch.begin(gone, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(5.0):
                await never()
        except asyncio.CancelledError:
            cancelled.append(threading.current_thread().name)
            watch.end(watched)

    threads = [threading.Thread(target=lambda: asyncio.run(serve()), name=name) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["one", "two"] == sorted(cancelled)


class Numbers(Executor):
    @requests(on="/count")
    async def count(self, doc: Number) -> AsyncIterator[Number]:
        try:
            for value in itertools.count():
                yield Number(value=value)
                await asyncio.sleep(0.01)
        finally:
            closed.set()


closed = asyncio.Event()


async def test_a_stream_ends_where_the_server_swallows_the_cancelling() -> None:
    """hypercorn's `send` does, when it finds the connection closed."""
    asgi, left = JinaASGI(Numbers), asyncio.Event()
    body = [{"type": "http.request", "body": b'{"data": {}}', "more_body": False}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/count",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }

    async def receive() -> Any:
        if body:
            return body.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        try:
            left.set()
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass

    async with asgi.lifespan(), asyncio.timeout(5.0):
        await asgi(scope, receive, send)
        await closed.wait()


async def test_a_step_that_ends_as_its_reader_is_cancelled_is_not_waited_for() -> None:
    """The thread's word comes between the cancelling and the moment that the cancelled task runs again."""
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(5.0)

    async with ExecutorThreads("test") as threads, asyncio.timeout(5.0):
        step = asyncio.create_task(threads.run(work, waits=lambda: True))
        await asyncio.to_thread(begun.wait, 5.0)
        release.set()
        threading.Event().wait(0.2)  # on the loop: the word is there, and behind it in the same turn
        step.cancel()
        await asyncio.wait([step])
    assert step.cancelled()
