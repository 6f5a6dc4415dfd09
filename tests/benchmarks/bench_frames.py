"""What a call through the framed protocol costs, beside a bare protocol that echoes as many bytes.

    python tests/benchmarks/bench_frames.py [--seconds 1] [--rounds 5]

One client asks one call of one small document at a time ("alone"), or keeps 64 going ("64 at once"). Over a
socket both ends run in one loop, or the other end in a process of its own. Ratios are to the bare echo of the
same round; the table shows the median of the rounds, and the best round in brackets.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from jina_asgi.documents.codec import codec
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.pipe import pipe_pair
from jina_asgi.protocols.frames.server import FrameServer
from jina_asgi.types import Call, Docs, Endpoint, Field, Result, Runner, Schema, Ticket

try:
    import uvloop
except ImportError:  # not on every system
    uvloop = None  # type: ignore[assignment]

TEXT = Schema("Text", {"Text": (Field("id", "str"), Field("text", "str"))}, {"title": "Text", "type": "object"})
ECHO = Endpoint(name="/echo", kind="batch", input=TEXT, output=TEXT)
DOC = codec(TEXT).encode([{"id": "0123456789abcdef0123456789abcdef", "text": "x" * 64}])
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop


class Echo(Ticket):
    """A Runner that answers with the docs it got."""

    endpoints = {ECHO.name: ECHO}

    def admit(self, endpoint: str, *, size: int = 0) -> Ticket:
        return self

    def close(self) -> None:
        return

    async def call(self, call: Call, /) -> Result:
        return Result(call.docs)

    async def stream(self, call: Call, /) -> AsyncGenerator[Docs, None]:
        yield call.docs

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield


class BareEcho(asyncio.Protocol):
    """The far end of the baseline."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BareAsk(BareEcho):
    """The near end of the baseline: one future for each answer of `size` bytes, in order."""

    def __init__(self, size: int) -> None:
        self.size, self.got = size, 0
        self.waiting: list[asyncio.Future[None]] = []

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        while self.got >= self.size:
            self.got -= self.size
            self.waiting.pop(0).set_result(None)

    async def ask(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.transport.write(bytes(self.size))
        await future


HostRequest = Callable[[], Awaitable[object]]


@asynccontextmanager
async def far_end(factory: Callable[[], asyncio.Protocol], *, process: bool) -> AsyncIterator[socket.socket]:
    """A connected socket whose other end `factory` serves: in this loop, or in another process."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
    if not process:
        await asyncio.get_running_loop().create_connection(factory, sock=far)
        yield near
        return
    loop = "uvloop" if uvloop is not None and isinstance(asyncio.get_running_loop(), uvloop.Loop) else "asyncio"
    name = "bare" if factory is BareEcho else "frames"
    command = [sys.executable, __file__, "--serve", f"{far.fileno()},{name},{loop}"]
    child = subprocess.Popen(command, pass_fds=[far.fileno()])
    far.close()
    try:
        yield near
    finally:
        near.close()
        await asyncio.to_thread(child.wait)


@asynccontextmanager
async def bare(*, process: bool) -> AsyncIterator[HostRequest]:
    async with far_end(BareEcho, process=process) as near:
        transport, protocol = await asyncio.get_running_loop().create_connection(
            lambda: BareAsk(len(DOC[0]) + 80), sock=near
        )
        await protocol.ask()
        yield protocol.ask
        transport.close()


@asynccontextmanager
async def frames(*, process: bool) -> AsyncIterator[HostRequest]:
    async with far_end(lambda: FrameServer(Echo()), process=process) as near:
        loop = asyncio.get_running_loop()
        client = FrameClient(lambda factory: loop.create_connection(factory, sock=near))
        async with client.lifespan():
            yield asker(client)


@asynccontextmanager
async def pair() -> AsyncIterator[HostRequest]:
    client = pipe_pair(Echo())
    async with client.lifespan():
        yield asker(client)


@asynccontextmanager
async def direct() -> AsyncIterator[HostRequest]:
    yield asker(Echo())


def asker(runner: Runner) -> HostRequest:
    of_text = codec(TEXT)

    async def ask() -> None:
        result = await runner.call(Call("/echo", of_text.encoded(DOC)))
        assert len(result.docs) == 1

    return ask


async def measure(ask: HostRequest, seconds: float, at_once: int) -> float:
    """Microseconds of wall time a call."""
    stop = time.perf_counter() + seconds
    done = 0

    async def keep_asking() -> None:
        nonlocal done
        while time.perf_counter() < stop:
            await ask()
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(keep_asking() for _ in range(at_once)))
    return (time.perf_counter() - start) / done * 1e6


async def one_round(seconds: float) -> dict[tuple[str, int], float]:
    figures = {}
    subjects = {
        "no protocol": direct(),
        "pipe pair": pair(),
        "bare echo, socket, one loop": bare(process=False),
        "frames, socket, one loop": frames(process=False),
        "bare echo, socket, two processes": bare(process=True),
        "frames, socket, two processes": frames(process=True),
    }
    for name, subject in subjects.items():
        async with AsyncExitStack() as stack:
            ask = await stack.enter_async_context(subject)
            for at_once in (1, 64):
                figures[name, at_once] = await measure(ask, seconds, at_once)
    return figures


def serve(descriptor: int, name: str, loop: str) -> None:
    async def run() -> None:
        closed = asyncio.Event()

        class Bare(BareEcho):
            def connection_lost(self, exc: Exception | None) -> None:
                closed.set()

        sock = socket.socket(fileno=descriptor)
        _, protocol = await asyncio.get_running_loop().create_connection(
            Bare if name == "bare" else lambda: FrameServer(Echo()), sock=sock
        )
        await (protocol.closed if isinstance(protocol, FrameServer) else closed).wait()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        descriptor, name, loop = options.serve.split(",")
        serve(int(descriptor), name, loop)
        return
    print(f"{'us a call: median (best)':<34}{'alone':>20}{'ratio':>8}{'64 at once':>20}{'ratio':>8}")
    for loop, factory in LOOPS.items():
        rounds = []
        for _ in range(options.rounds):
            with asyncio.Runner(loop_factory=factory) as runner:
                rounds.append(runner.run(one_round(options.seconds)))
        print(loop)
        for name in dict.fromkeys(key[0] for key in rounds[0]):
            row = f"  {name:<32}"
            for at_once in (1, 64):
                values = [figures[name, at_once] for figures in rounds]
                row += f"{statistics.median(values):>12.1f} ({min(values):>5.1f})"
                bare_name = name.replace("frames", "bare echo")
                ratio = statistics.median(f[name, at_once] / f[bare_name, at_once] for f in rounds)
                row += f"{ratio:>8.2f}" if bare_name != name else " " * 8
            print(row)


if __name__ == "__main__":
    main()
