"""A server elsewhere that is down, slow or wrong: its callers are told, soon, and are right again once it is."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from jina_asgi import Context, DeadlineExceeded, Deployment, Executor, Flow, JinaASGI, NotReady, Unavailable, requests
from jina_asgi.runners.wrappers import Wrapper
from tests.doubles.uvicorn_server import free_port, serving


class Text(BaseDoc):
    text: str = ""


class Shout(Executor):
    @requests(on="/shout")
    async def shout(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text.upper()) for doc in docs)

    @requests(on="/slow")
    async def slow(self, doc: Text) -> Text:
        await asyncio.sleep(3600)
        return doc


def elsewhere(port: int) -> Deployment:
    return Deployment(name="there", external=True, host="http://127.0.0.1", port=port, protocol="http")


async def shouted(there: Deployment) -> str:
    return str((await there.call("/shout", {"text": "hi"}))[0]["text"])


async def test_a_server_that_is_down_is_asked_now_and_then_and_found_again() -> None:
    """FL-09: after five calls in a row that found nobody the next are refused at once."""
    port = free_port()
    async with AsyncExitStack() as stack:
        async with serving(JinaASGI(Shout), port=port, lifespan="on"):
            there = await stack.enter_async_context(elsewhere(port))
            assert "HI" == await shouted(there)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await shouted(there)
        with pytest.raises(NotReady, match="has not answered 5 calls in a row") as refused:
            await shouted(there)
        assert 0.0 < refused.value.retry_after <= 0.5
        assert Wrapper(there.runner).status()["breaker"] == "open"
        async with serving(JinaASGI(Shout), port=port, lifespan="on"):
            await asyncio.sleep(refused.value.retry_after)
            assert "HI" == await shouted(there)
            assert Wrapper(there.runner).status()["breaker"] == "closed"


async def test_callers_that_cannot_wait_do_not_shut_a_server_off_for_the_others() -> None:
    """FL-09: a deadline is the caller's own."""
    async with serving(JinaASGI(Shout), lifespan="on") as port, elsewhere(port) as there:
        for _ in range(10):
            with pytest.raises(DeadlineExceeded):
                await there.call("/slow", {}, context=Context(deadline=time.monotonic() + 0.02))
        assert "HI" == await shouted(there)


async def test_a_server_elsewhere_gets_what_a_filter_lets_through() -> None:
    async with serving(JinaASGI(Shout), lifespan="on") as port:
        options: dict[str, Any] = {"external": True, "host": "http://127.0.0.1", "port": port, "protocol": "http"}
        async with Flow().add(name="there", when={"text": {"$eq": "hi"}}, **options) as flow:
            assert ["HI"] == [doc["text"] for doc in await flow.call("/shout", [{"text": "hi"}, {"text": "no"}])]
