"""Whatever a connection does, its own request ends, others' are answered, and nothing of it is left.

On a real uvicorn; what the server refuses by itself is here too, where it decides what reaches an Executor.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import websockets
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, JinaASGI, Limits, requests
from tests.doubles.rig import Served
from tests.doubles.uvicorn_server import serving
from tests.faults.wire import Residue, Wire, chunks, neighbours, post


class Text(BaseModel):
    text: str = ""


@dataclass
class Diary:
    """What an Executor began, and what it ended with nobody to answer."""

    began: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    async def until_left(self, text: str) -> None:
        async with asyncio.timeout(5.0):
            while text not in self.left:
                await asyncio.sleep(0.01)


class Worker(Executor):
    def __init__(self, diary: Diary, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.diary = diary

    @requests(on="/echo")
    async def echo(self, doc: Text) -> Text:
        self.diary.began.append(doc.text)
        return doc

    @requests(on="/wait")
    async def wait(self, doc: Text) -> Text:
        self.diary.began.append(doc.text)
        try:
            await asyncio.sleep(3600)
        finally:
            self.diary.left.append(doc.text)
        return doc

    @requests(on="/nap")
    def nap(self, doc: Text) -> Text:
        self.diary.began.append(doc.text)
        time.sleep(0.02)
        return doc

    @requests(on="/count")
    async def count(self, doc: Text) -> AsyncGenerator[Text, None]:
        for index in range(1000):
            yield Text(text=f"{doc.text}{index}")
            await asyncio.sleep(0.001)


@asynccontextmanager
async def served(diary: Diary | None = None, **limits: int) -> AsyncIterator[int]:
    """The port of a server that answers."""
    deployment = Deployment(Worker, uses_with={"diary": diary or Diary()})
    async with serving(JinaASGI(deployment, limits=Limits(**limits)), lifespan="on") as port:
        yield port


def body(text: str = "x") -> bytes:
    return b'{"data":{"text":"%s"}}' % text.encode()


async def still_right(port: int) -> None:
    async with Wire(port) as wire:
        await wire.send(post("/echo", body("after"), "connection: close"))
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'"text":"after"' in answer


@pytest.mark.parametrize("length", ["-5", "+22", "0x16", "22, 22", "2 2", "9" * 30, "x", ""])
async def test_a_length_that_is_no_number_is_400_and_no_call(length: str) -> None:
    """TR-02."""
    diary = Diary()
    async with served(diary) as port:
        async with Wire(port) as wire:
            await wire.send(post("/echo", body(), length=length))
            assert (await wire.head()).startswith(b"HTTP/1.1 400 ")
        assert diary.began == []
        await still_right(port)


async def test_two_lengths_are_400_and_no_call() -> None:
    """TR-02, and the root of smuggling."""
    diary = Diary()
    async with served(diary) as port:
        for header in ("content-length: 5", "transfer-encoding: chunked"):
            async with Wire(port) as wire:
                await wire.send(
                    post("/echo", body(), header).replace(b"\r\n\r\n", b"\r\ncontent-length: 22\r\n\r\n", 1)
                )
                assert (await wire.head()).startswith(b"HTTP/1.1 400 ")
        assert diary.began == []
        await still_right(port)


async def test_a_body_shorter_than_it_says_is_never_a_call() -> None:
    """TR-02: its client leaves before the rest comes."""
    diary = Diary()
    async with served(diary) as port:
        before = Residue.now()
        async with Wire(port) as wire:
            await wire.send(post("/echo", body(), length="100"))
            await asyncio.sleep(0.05)  # it is being read
        await Residue.settles(before)
        assert diary.began == []
        await still_right(port)


async def test_what_follows_a_body_is_no_part_of_it() -> None:
    """TR-02: a length too short makes one call of what it covers, if that is a document, and a bad request of the rest."""
    diary = Diary()
    async with served(diary) as port:
        async with Wire(port) as wire:
            await wire.send(post("/echo", body() + b"GARBAGE\r\n\r\n", length=str(len(body()))))
            answers = await wire.rest()
        assert answers.count(b"HTTP/1.1 200 ") <= 1
        assert answers.rpartition(b"HTTP/1.1 ")[2].startswith(b"400 ")
        assert diary.began in ([], ["x"])
        await still_right(port)


async def test_a_body_without_a_length_is_refused_soon_after_its_limit() -> None:
    """TR-02: 413, and the server has not waited for the other 60 MB."""
    async with served(body=2**20) as port:
        async with Wire(port) as wire:
            sent = 0
            await wire.send(post("/echo", b"", "transfer-encoding: chunked"))
            answer = asyncio.create_task(wire.head())
            piece = b"10000\r\n" + b" " * 2**16 + b"\r\n"
            while not answer.done() and sent < 64 * 2**20:
                await wire.send(piece)
                sent += 2**16
            assert (await answer).startswith(b"HTTP/1.1 413 ")
            assert sent < 16 * 2**20  # of it the sockets' own buffers are the most
        await still_right(port)


async def test_a_refused_client_that_asks_first_is_not_asked_to_go_on() -> None:
    """TR-08: `Expect: 100-continue`."""
    async with served(body=2**20) as port:
        async with Wire(port) as wire:
            await wire.send(post("/echo", b"", "expect: 100-continue", length=str(2**30)))
            assert (await wire.head()).startswith(b"HTTP/1.1 413 ")
        async with Wire(port) as wire:
            await wire.send(post("/echo", b"", "expect: 100-continue", length=str(len(body()))))
            assert (await wire.head()).startswith(b"HTTP/1.1 100 ")
            await wire.send(body())
            assert (await wire.head()).startswith(b"HTTP/1.1 200 ")


HEADERS = post("/wait", body("reset"))
RESETS = {
    "after its headers": HEADERS.partition(b"{")[0],
    "within its body": HEADERS[:-10],
    "before its answer": HEADERS,
    "within its stream": post("/count", body("n")),
}


@pytest.mark.parametrize("when", RESETS)
async def test_connections_that_are_reset_leave_nothing(when: str) -> None:
    """TR-03: 250 of each kind, with others asking meanwhile."""
    diary = Diary()
    async with served(diary) as port:

        async def one() -> None:
            async with Wire(port) as wire:
                await wire.send(RESETS[when])
                if when == "within its stream":
                    await wire.until(b"n2")
                else:
                    await asyncio.sleep(0.005)
                wire.reset()

        await asyncio.gather(*(one() for _ in range(10)))  # what is made once is made
        await still_right(port)
        await asyncio.sleep(0.2)
        before = Residue.now()
        async with neighbours(port, "/echo", count=2) as ledger:
            for _ in range(10):
                await asyncio.gather(*(one() for _ in range(25)))
        await Residue.settles(before)  # without neighbours: their own clients hold generators within each request
        assert diary.left.count("reset") == diary.began.count("reset")
    assert ledger.others == []
    assert ledger.right > 0


async def test_work_that_waits_for_its_turn_goes_with_the_client_that_asked_for_it() -> None:
    """TR-03: of 50 calls for one thread, 40 are reset; those never start."""
    diary = Diary()
    async with served(diary) as port:
        async with asyncio.TaskGroup() as group:

            async def ask(name: str, *, leaves: bool) -> None:
                async with Wire(port) as wire:
                    await wire.send(post("/nap", body(name), "connection: close"))
                    if leaves:
                        await asyncio.sleep(0.15)  # beyond the 0.1 s for which a short request is not watched
                        wire.reset()
                    else:
                        assert (await wire.rest()).startswith(b"HTTP/1.1 200 ")

            for number in range(50):
                group.create_task(ask(f"{number}", leaves=number % 5 != 0))
        stayed = {f"{number}" for number in range(0, 50, 5)}
        assert stayed <= set(diary.began)
        assert len(set(diary.began) - stayed) < 25  # it began 8 or so a moment before they left


async def test_a_client_that_has_closed_its_half_has_left() -> None:
    """TR-04, by the servers' own choice: they close the connection of a client that will send no more."""
    diary = Diary()
    async with served(diary) as port:
        async with Wire(port) as wire:
            await wire.send(post("/wait", body("half")))
            while not diary.began:
                await asyncio.sleep(0.01)
            wire.end_of_sending()
            assert await wire.rest() == b""
        await diary.until_left("half")
        await still_right(port)


async def test_a_body_in_chunks_of_one_byte_takes_time_in_proportion() -> None:
    """TR-05: a megabyte, and a chunk extension of a megabyte."""
    text = "x" * 2**20
    async with served() as port, neighbours(port, "/echo", count=1) as ledger:
        async with Wire(port) as wire:
            start = time.monotonic()
            head = post("/echo", b"", "transfer-encoding: chunked", "connection: close")
            await wire.send(head + chunks(body(text), 1))
            answer = await wire.rest()
            assert text.encode() in answer
            assert time.monotonic() - start < 10.0
        async with Wire(port) as wire:
            await wire.send(head + b"%x;%b\r\n%b\r\n0\r\n\r\n" % (len(body()), b"e" * 2**20, body()))
            assert (await wire.rest())[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400")
    assert ledger.others == []


@pytest.mark.parametrize(
    "headers", [["x: " + "y" * 100_000], [f"x{n}: y" for n in range(1000)], ["range: bytes=" + "0-0," * 10**4 + "1-1"]]
)
async def test_heavy_headers_are_refused_or_carried(headers: list[str]) -> None:
    """TR-06: which of both is the server's word; no route here looks at ranges."""
    async with served() as port:
        async with Wire(port) as wire:
            start = time.monotonic()
            await wire.send(post("/echo", body(), *headers, "connection: close"))
            answer = await wire.rest()
            assert answer[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 431")
            assert time.monotonic() - start < 2.0
        await still_right(port)


async def test_sockets_that_break_the_rules_are_closed_and_the_others_go_on() -> None:
    """TR-13: a frame without a mask, an unknown kind of frame, a flood of pings, one message of 10 MB, no reading."""
    handshake = b"GET /-/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    handshake += b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    ping = b"\x89\x84\0\0\0\0abcd"
    async with served(body=2**20) as port:
        before = Residue.now()
        async with websockets.connect(f"ws://127.0.0.1:{port}/-/ws") as good:
            for frame in (b"\x81\x02{}", b"\x83\x80abcd", b"\xf1\x80abcd", b"\x81\xff" + b"\xff" * 8 + b"abcd"):
                async with Wire(port) as wire:
                    await wire.send(handshake)
                    assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
                    await wire.send(frame)
                    assert (await wire.rest())[:1] == b"\x88"  # a close frame, then the end
            async with Wire(port) as wire:
                await wire.send(handshake)
                await wire.head()
                async with asyncio.timeout(20.0), asyncio.TaskGroup() as group:
                    group.create_task(wire.send(ping * 10_000))
                    assert await wire.exactly(6 * 10_000) == b"\x8a\x04abcd" * 10_000  # each has its pong
            async with websockets.connect(f"ws://127.0.0.1:{port}/-/ws", max_size=None) as large:
                await large.send('{"id":1,"endpoint":"/echo","data":{"text":"%s"}}' % ("x" * 10 * 2**20))
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await large.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1009
            await good.send('{"id":1,"endpoint":"/echo","data":{"text":"good"}}')
            assert "good" in str(await good.recv())
        await Residue.settles(before)


FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

from pydantic import BaseModel
from jina_asgi import Executor, JinaASGI, requests

class Text(BaseModel):
    text: str = ""

class Echo(Executor):
    @requests(on="/echo")
    async def echo(self, doc: Text) -> Text:
        return doc

asgi = JinaASGI(Echo)
"""


@pytest.mark.processes
async def test_a_server_without_descriptors_answers_again_once_it_has_some(tmp_path: Path) -> None:
    """TR-10: 120 connections for a process that may have 64 files; it does not spin meanwhile."""
    (tmp_path / "few_files.py").write_text(FEW_FILES)
    where = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    with Served("uvicorn", "few_files:asgi", env=where) as server:
        await still_right(server.port)
        async with AsyncExitStack() as stack:
            for _ in range(120):
                await stack.enter_async_context(Wire(server.port))
            await asyncio.sleep(0.5)
            before = processor_seconds(server.process.pid)
            await asyncio.sleep(1.0)
            assert processor_seconds(server.process.pid) - before < 0.5
        async with asyncio.timeout(10.0):
            while not await is_right(server.port):  # those that had no file were reset
                await asyncio.sleep(0.05)


async def is_right(port: int) -> bool:
    try:
        await still_right(port)
    except (ConnectionError, AssertionError):
        return False
    return True


def processor_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
