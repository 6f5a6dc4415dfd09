"""A little of the fuzzing in every run of the tests; `fuzz_frames.py` does a million frames."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from jina_asgi.errors import JinaASGIError
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.protocols.frames.pipe import pipe
from jina_asgi.protocols.frames.server import FrameServer
from tests.doubles.frames import Double, RawEnd, a_call
from tests.faults.fuzz_frames import HELLO, Hostile, fuzz


def test_hostile_frames_raise_nothing_but_protocol_errors() -> None:
    seen = fuzz(5000, seed=0)

    assert seen["frames sent"] == 5000
    assert seen["frames read"] > 100


@pytest.mark.parametrize("seed", range(5))
async def test_a_server_outlives_hostile_connections(seed: int) -> None:
    unexpected: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    hostile = Hostile(random.Random(seed))
    runner = Double()

    for _ in range(40):
        near, server = Deaf(), FrameServer(runner)
        pipe(near, server)
        near.transport.write(hostile.seeds[0])
        for _ in range(10):
            near.transport.write(hostile.frame())
        near.transport.close()
        async with asyncio.timeout(5):
            await server.wait_closed()

    assert unexpected == []
    assert runner.places == 0


@pytest.mark.parametrize("seed", range(5))
async def test_a_client_of_a_hostile_server_gets_one_outcome_a_call(seed: int) -> None:
    unexpected: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    hostile = Hostile(random.Random(seed))

    for _ in range(40):
        far = Deaf()

        async def connect(factory: Any, far: Deaf = far) -> Any:
            near = factory()
            transport, _ = pipe(near, far)
            far.send(1, 0, HELLO)
            return transport, near

        client = FrameClient(connect, grace=0.0)
        async with asyncio.timeout(5), client.lifespan():
            calls = [asyncio.create_task(client.call(a_call("x"))) for _ in range(3)]
            await asyncio.sleep(0)
            for _ in range(10):
                far.transport.write(hostile.frame())
            far.transport.close()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, JinaASGIError) or hasattr(outcome, "docs") for outcome in outcomes)

    assert unexpected == []


class Deaf(RawEnd):
    """An end that does not look at what comes."""

    def data_received(self, data: bytes) -> None:
        return
