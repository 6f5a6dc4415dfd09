"""Hooks whose errors are no good to touch: `__init__`, `warmup`, `health`, `close`, `auth`, and what batches are made by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from jina_asgi import Deployment, Executor, JinaASGI, dynamic_batching, requests
from jina_asgi.runners.local.executor_lifecycle import HealthWatch
from jina_asgi.testing import client
from tests.doubles.bad_manners import ERRORS, Rude, Thing, Word

LONGEST = 8192
AT_ONCE = 10.0  # seconds, on a busy machine


class Living(Executor):
    """Raises where it is told, in a plain method."""

    def __init__(self, where: str, raised: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.where, self.raised = where, raised
        self.happens("init")

    def happens(self, where: str) -> None:
        if where == self.where:
            raise ERRORS[self.raised]()

    def warmup(self) -> Any:
        self.happens("warmup")

    def health(self) -> Any:
        self.happens("health")
        return True

    def close(self) -> Any:
        self.happens("close")

    @requests(on="/echo")
    async def echo(self, docs: list[Word]) -> list[Word]:
        return docs


class LivingAsync(Living):
    """Raises in an async method."""

    async def warmup(self) -> None:
        self.happens("warmup")

    async def health(self) -> bool:
        self.happens("health")
        return True

    async def close(self) -> None:
        self.happens("close")


@pytest.mark.parametrize("uses", [Living, LivingAsync])
@pytest.mark.parametrize("where", ["init", "warmup"])
async def test_what_loading_raises_is_a_failure_to_load_that_says_its_class_in_short(
    uses: type[Executor], where: str
) -> None:
    for raised in ERRORS:
        app = JinaASGI(Deployment(uses, uses_with={"where": where, "raised": raised}))
        async with asyncio.timeout(AT_ONCE), client(app) as http:
            while "failed" not in (ready := await http.get("/-/ready")).text:
                await asyncio.sleep(0.005)  # loading goes on in a thread
            refused = await http.post("/echo", json={"data": [{"text": "x"}]})
        assert (raised, 503, 503) == (raised, ready.status_code, refused.status_code)
        assert max(len(ready.content), len(refused.content)) < LONGEST


@pytest.mark.parametrize("uses", [Living, LivingAsync])
async def test_what_close_raises_ends_no_more_than_the_executor(uses: type[Executor]) -> None:
    for raised in ERRORS:
        app = JinaASGI(Deployment(uses, uses_with={"where": "close", "raised": raised}))
        async with asyncio.timeout(AT_ONCE), client(app) as http:
            answer = await http.post("/echo", json={"data": [{"text": "x"}]})
        assert (raised, 200) == (raised, answer.status_code)


@pytest.mark.parametrize("uses", [Living, LivingAsync])
async def test_a_health_check_that_raises_anything_is_ill(uses: type[Executor]) -> None:
    for raised in ERRORS:
        watch = HealthWatch(uses(where="health", raised=raised), "it")
        await asyncio.wait_for(watch.look(), AT_ONCE)
        assert watch.unhealthy_reason.startswith("it: its health() failed (")
        assert len(watch.unhealthy_reason) < LONGEST


async def asynchronous(headers: Mapping[str, str], endpoint: str) -> Any:
    if headers.get("x-rude"):
        raise ERRORS[headers["x-rude"]]()
    return "me"


def synchronous(headers: Mapping[str, str], endpoint: str) -> Any:
    if headers.get("x-rude"):
        raise ERRORS[headers["x-rude"]]()
    return "me"


@pytest.mark.parametrize("auth", [asynchronous, synchronous])
@pytest.mark.parametrize("path", ["/sync_batch", "/-/status"])
async def test_what_auth_raises_fails_its_own_request(auth: Any, path: str) -> None:
    async with client(JinaASGI(Rude, auth=auth)) as http:
        for raised in ERRORS:
            ask: Callable[..., Any] = http.get if path.startswith("/-/") else http.post
            body: Any = {} if path.startswith("/-/") else {"json": {"data": [{"text": "calm"}]}}
            failed = await asyncio.wait_for(ask(path, headers={"x-rude": raised}, **body), AT_ONCE)
            calm = await asyncio.wait_for(ask(path, **body), AT_ONCE)
            assert (raised, 500, 200) == (raised, failed.status_code, calm.status_code)
            assert len(failed.content) < LONGEST


def rude(document: Any) -> Any:
    """A cost that raises, or is nothing to look at."""
    if document.text in ERRORS:
        raise ERRORS[document.text]()
    return Thing() if document.text == "a thing" else 1


class Priced(Executor):
    """Its batches are made by functions of its own."""

    @requests(on="/cost")
    @dynamic_batching(preferred_batch_size=4, cost=rude, max_cost=100.0)
    async def cost(self, docs: list[Word]) -> list[Word]:
        return docs

    @requests(on="/metric")
    @dynamic_batching(preferred_batch_size=4, custom_metric=rude, use_custom_metric=True)
    def metric(self, docs: list[Word]) -> list[Word]:
        return docs


@pytest.mark.parametrize("endpoint", ["/cost", "/metric"])
async def test_what_the_cost_of_a_document_raises_fails_its_own_request(endpoint: str) -> None:
    async with client(JinaASGI(Priced)) as http:
        for raised in (*ERRORS, "a thing"):
            failed = await asyncio.wait_for(http.post(endpoint, json={"data": [{"text": raised}]}), AT_ONCE)
            calm = await asyncio.wait_for(http.post(endpoint, json={"data": [{"text": "calm"}]}), AT_ONCE)
            assert (raised, 500, 200) == (raised, failed.status_code, calm.status_code)
            assert "ExecutorError" == failed.json()["error"]["type"]
            assert len(failed.content) < LONGEST
