"""Large documents that arrive encoded are decoded beside the event loop, small ones at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from pydantic import field_validator

from jina_asgi import Executor, requests
from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.documents.codec import codec
from jina_asgi.errors import InvalidDocs, NotReady
from jina_asgi.runners.local.runner import LocalRunner
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Call, Context


class Noted(BaseDoc):
    text: str = ""

    @field_validator("text")
    @classmethod
    def note(cls, value: str) -> str:
        return f"{len(value)} {threading.current_thread().name}"


class Answers(Executor):
    @requests(on="/batch")
    async def batch(self, docs: DocList[Noted], **kwargs: Any) -> DocList[Noted]:
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Noted, **kwargs: Any) -> AsyncIterator[Noted]:
        yield doc


async def asked(runner: LocalRunner, endpoint: str, size: int) -> str:
    reader = codec(runner.endpoints[endpoint].input)
    sent = reader.encoded(reader.encode([Noted.model_construct(text="a" * size)]))
    call = Call(endpoint, sent, {}, Context("a"))
    if endpoint == "/batch":
        (doc,) = (await runner.call(call)).docs.typed
    else:
        ((doc,),) = [docs.typed async for docs in runner.stream(call)]
    text: str = doc.text
    return text


async def answered(endpoint: str, size: int) -> str:
    runner = LocalRunner(Answers, DeploymentSettings.of({"name": "one"}))
    async with runner.lifespan():
        return await asked(runner, endpoint, size)


@pytest.mark.parametrize("endpoint", ["/batch", "/stream"])
async def test_only_what_is_large_leaves_the_loop(endpoint: str) -> None:
    here = threading.current_thread().name
    assert f"9 {here}" == await answered(endpoint, 9)
    assert f"{LARGE + 1} jina-asgi-reads" == await answered(endpoint, LARGE + 1)


async def test_what_is_wrong_with_large_documents_is_told() -> None:
    runner = LocalRunner(Answers, DeploymentSettings.of({"name": "one"}))
    async with runner.lifespan():
        reader = codec(runner.endpoints["/batch"].input)
        for raw in (
            b"\x81\xa4text\xdb\x00\xff\xff\xff" + b"a" * (LARGE + 1),
            b"\x81\xa4text\x92\x01" + b"\xc0" * (LARGE + 1),
        ):
            with pytest.raises(InvalidDocs):
                await runner.call(Call("/batch", reader.encoded([raw]), {}, Context("a")))


@pytest.mark.parametrize("endpoint", ["/batch", "/stream"])
async def test_a_call_whose_documents_are_still_read_as_serving_ends_has_not_begun(endpoint: str) -> None:
    runner = LocalRunner(Answers, DeploymentSettings.of({"name": "one", "grace": 0.05}))
    reads, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold_up() -> None:
        loop.call_soon_threadsafe(reads.set)
        assert release.wait(30.0)

    before = asyncio.create_task(parse_in_thread(None, hold_up))
    try:
        async with asyncio.timeout(10.0):
            await reads.wait()
            async with runner.lifespan():
                call = asyncio.create_task(asked(runner, endpoint, LARGE + 1))
                await asyncio.sleep(0)  # its documents wait for the thread
            with pytest.raises(NotReady):  # so it may be tried again
                await call
    finally:
        release.set()
        await before
