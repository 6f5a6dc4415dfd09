"""Streams whose readers leave, stall or come back, and generators that do what they should not; on real sockets."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, JinaASGI, requests
from tests.doubles.rig import Served
from tests.doubles.uvicorn_server import serving
from tests.faults.wire import Residue, Wire, neighbours, post


class Text(BaseModel):
    text: str = ""


class Tokens:
    """What streams have made, and which of them are closed."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        self.closed: dict[str, float] = {}

    async def until_closed(self, name: str) -> float:
        async with asyncio.timeout(10.0):
            while name not in self.closed:
                await asyncio.sleep(0.005)
        return self.closed[name]


class Speaker(Executor):
    def __init__(self, tokens: Tokens, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens = tokens

    @requests(on="/echo")
    async def echo(self, doc: Text) -> Text:
        return doc

    @requests(on="/paced")
    async def paced(self, doc: Text) -> AsyncGenerator[Text, None]:
        async for text in self._made(doc.text, 60, "token"):
            await asyncio.sleep(0.05)
            yield text

    @requests(on="/flood")
    async def flood(self, doc: Text) -> AsyncGenerator[Text, None]:
        async for text in self._made(doc.text, 1_000_000, "x" * 4000):
            yield text

    async def _made(self, name: str, count: int, text: str) -> AsyncIterator[Text]:
        try:
            for index in range(count):
                self.tokens.made[name] = index + 1
                yield Text(text=f"{text}{index};")
        finally:
            self.tokens.closed[name] = time.monotonic()


@asynccontextmanager
async def served(uses: type[Executor], **uses_with: Any) -> AsyncIterator[int]:
    async with serving(JinaASGI(Deployment(uses, uses_with=uses_with)), lifespan="on") as port:
        yield port


def body(text: str) -> bytes:
    return b'{"data":{"text":"%s"}}' % text.encode()


async def test_readers_that_leave_at_any_token_stop_the_work_within_two() -> None:
    """ST-01: 500 over server-sent events; those of a WebSocket are in its own tests."""
    tokens, choose = Tokens(), random.Random(1)
    after: dict[str, int] = {}

    async def leave(port: int, number: int, at: int) -> None:
        name = f"{number}"
        async with Wire(port) as wire:
            await wire.send(post("/paced", body(name)))
            await wire.head()
            for index in range(at):
                await wire.until(b"token%d;" % index)
            left, had = time.monotonic(), tokens.made.get(name, 0)
            wire.reset()
        assert await tokens.until_closed(name) - left < 1.0
        after[name] = tokens.made[name] - had

    async with served(Speaker, tokens=tokens) as port:
        await leave(port, -1, 1)
        before = Residue.now()
        for start in range(0, 500, 100):
            await asyncio.gather(*(leave(port, start + n, choose.choice((1, 2, 5, 20))) for n in range(100)))
        await Residue.settles(before)
    assert sorted(after.values())[len(after) // 2] <= 2
    assert max(after.values()) <= 20  # 50 ms a token, and a second at most: the machine may be busy
    assert len(tokens.closed) == 501


async def test_readers_that_stop_reading_stop_their_generators_and_no_others() -> None:
    """ST-03: 20 of them, each of 4 GB; in the end they are cut and nothing is left."""
    tokens = Tokens()
    async with served(Speaker, tokens=tokens) as port:
        async with AsyncExitStack() as stack:
            for number in range(20):
                wire = await stack.enter_async_context(Wire(port, receive_buffer=2**16))
                await wire.send(post("/flood", body(f"{number}")))
                await wire.head()
            async with asyncio.timeout(20.0):
                while (made := dict(tokens.made)) != await later(tokens):
                    pass
            assert max(made.values()) * 4000 < 8 * 2**20  # the kernel's buffers are the most of it
            async with neighbours(port, "/echo") as ledger, asyncio.timeout(20.0):
                while ledger.right <= 20:
                    await asyncio.sleep(0.05)
            assert tokens.made == made
            assert ledger.others == []
        for number in range(20):
            await tokens.until_closed(f"{number}")


async def later(tokens: Tokens) -> dict[str, int]:
    await asyncio.sleep(0.5)
    return dict(tokens.made)


class Odd(Executor):
    """Generators that do what they should not."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.go_on = threading.Event()

    @requests(on="/echo")
    async def echo(self, doc: Text) -> Text:
        return doc

    @requests(on="/none")
    async def none(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield Text(text="first")
        yield None  # type: ignore[misc]

    @requests(on="/other")
    def other(self, doc: Text) -> Generator[Text, None, None]:
        yield Text(text="first")
        yield {"text": 1}  # type: ignore[misc]

    @requests(on="/stop")
    def stop(self, doc: Text) -> Generator[Text, None, None]:
        yield Text(text="first")
        next(iter(()))

    @requests(on="/exit")
    def exit(self, doc: Text) -> Generator[Text, None, None]:
        yield Text(text="first")
        sys.exit(3)

    @requests(on="/stubborn")
    async def stubborn(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield Text(text="first")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            yield Text(text="after the end")

    @requests(on="/blocked")
    def blocked(self, doc: Text) -> Generator[Text, None, None]:
        yield Text(text="first")
        self.go_on.wait(30)
        yield Text(text="second")

    @requests(on="/unblock")
    async def unblock(self, doc: Text) -> Text:
        self.go_on.set()
        return doc


@pytest.mark.parametrize("endpoint", ["/none", "/other", "/stop", "/exit"])
async def test_a_generator_that_does_what_it_should_not_ends_its_stream_by_an_error(endpoint: str) -> None:
    """ST-04, ST-06: after what it gave, as the Executor's failure, and never as an end."""
    async with served(Odd) as port:
        async with Wire(port) as wire:
            await wire.send(post(endpoint, body("x"), "connection: close"))
            answer = await wire.rest()
        assert b'data: {"text":"first"}' in answer
        assert answer.count(b"event: error") == 1
        assert b'"type":"ExecutorError"' in answer
        assert b"event: end" not in answer
        async with neighbours(port, "/echo", count=1) as ledger:
            await asyncio.sleep(0.1)
        assert (ledger.others, ledger.right > 0) == ([], True)


async def test_a_generator_that_yields_after_it_was_closed_gets_an_error_and_no_client_hears_it() -> None:
    """ST-06."""
    async with served(Odd) as port:
        before = Residue.now()
        for _ in range(5):
            async with Wire(port) as wire:
                await wire.send(post("/stubborn", body("x")))
                await wire.until(b"first")
                wire.reset()
        await Residue.settles(before)
        async with neighbours(port, "/echo", count=1) as ledger:
            await asyncio.sleep(0.1)
        assert (ledger.others, ledger.right > 0) == ([], True)


async def test_a_generator_that_blocks_its_thread_holds_no_call_on_the_loop() -> None:
    """ST-06: a sync one, which others that need its thread wait for."""
    async with served(Odd) as port, Wire(port) as wire:
        await wire.send(post("/blocked", body("x"), "connection: close"))
        await wire.until(b"first")
        async with asyncio.timeout(10.0), neighbours(port, "/echo", count=1) as ledger:
            while ledger.right < 5:
                await asyncio.sleep(0.01)
        assert ledger.others == []
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.post("/unblock", json={"data": {}})).status_code == 200
        assert b"second" in await wire.rest()


async def test_a_reader_that_comes_back_begins_anew() -> None:
    """ST-11: events have no ids, so browsers send no Last-Event-ID; one that is sent changes nothing."""
    async with served(Speaker, tokens=Tokens()) as port:
        async with Wire(port) as wire:
            await wire.send(post("/paced", body("a")))
            answer = await wire.until(b"token3;")
            wire.reset()
        assert not re.search(rb"^id:", answer, re.MULTILINE)
        async with Wire(port) as wire:
            await wire.send(post("/paced", body("b"), "last-event-id: 3"))
            assert b"token0;" in await wire.until(b"token1;")


IDLE = """
import asyncio, os
from collections.abc import AsyncGenerator
from pydantic import BaseModel
from jina_asgi import Deployment, Executor, JinaASGI, requests

class Text(BaseModel):
    text: str = ""

class Idle(Executor):
    @requests(on="/idle")
    async def idle(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield Text(text="begun")
        await asyncio.sleep(3600)

    @requests(on="/rss")
    async def rss(self, doc: Text) -> Text:
        with open("/proc/self/statm") as statm:
            return Text(text=str(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")))

asgi = JinaASGI(Deployment(Idle))
"""


@pytest.mark.processes
async def test_500_idle_streams_are_small_and_end_with_the_server(tmp_path: Path) -> None:
    """ST-07: under gunicorn with this library's settings, which give them 2 s here; each is told why it ends."""
    (tmp_path / "idle_app.py").write_text(IDLE)
    where = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    with Served("gunicorn-uvicorn", "idle_app:asgi", "--graceful-timeout", "2", env=where) as server:

        def resident() -> int:
            with server.client() as http:
                return int(http.post("/rss", json={"data": {}}).json()["data"][0]["text"])

        before = await asyncio.to_thread(resident)
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(Wire(server.port)) for _ in range(500)]
            for wire in wires:
                await wire.send(post("/idle", body("x")))
            for wire in wires:
                await wire.until(b"begun")
            assert await asyncio.to_thread(resident) - before < 500 * 100_000
            server.signal(signal.SIGTERM)
            rests = [await wire.rest() for wire in wires]
            assert await asyncio.to_thread(lambda: server.ended(within=10.0)) == 0
        assert sum(b"event: error" in rest for rest in rests) == 500
        assert not any(b"event: end" in rest for rest in rests)
