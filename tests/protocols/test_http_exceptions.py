"""An Executor that raises Starlette's or FastAPI's HTTPException: its status, detail and headers are the answer, everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import fastapi
import pytest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from jina_asgi import (
    Deployment,
    Executor,
    ExecutorError,
    ExecutorHTTPError,
    JinaASGI,
    ReplicaPool,
    dynamic_batching,
    requests,
)
from jina_asgi.testing import client, websocket

HEADERS = {"X-Plan": "gold", "Retry-After": "9"}
SENT = {"x-plan": "gold", "retry-after": "9"}


class Text(BaseModel):
    text: str


class Property(HTTPException):
    """Has code of its own where its detail is looked for."""

    def __init__(self) -> None:
        super().__init__(418)

    @property
    def detail(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt

    @detail.setter
    def detail(self, _: Any) -> None:
        pass


RAISED: Mapping[str, Exception] = {
    "text": HTTPException(402, "pay", HEADERS),
    "data": fastapi.HTTPException(409, {"why": ["taken", 7]}, HEADERS),
    "enormous": HTTPException(402, "x" * 10**7, {"x-plan": "gold", "x-long": "y" * 10**6, "x-many": "a\r\nb: c"}),
    "no such status": HTTPException.__new__(HTTPException),
    "a property": Property(),
}


class Paywall(Executor):
    """Raises what a document's text names."""

    @requests(on="/sync")
    def sync(self, docs: list[Text]) -> list[Text]:
        raise RAISED[docs[0].text]

    @requests(on="/batch")
    async def batch(self, docs: list[Text]) -> list[Text]:
        raise RAISED[docs[0].text]

    @requests(on="/single")
    async def single(self, doc: Text) -> Text:
        raise RAISED[doc.text]

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=4)
    def batched(self, docs: list[Text]) -> list[Text]:
        raise RAISED[docs[0].text]

    @requests(on="/stream")
    async def stream(self, doc: Text) -> AsyncIterator[Text]:
        raise RAISED[doc.text]
        yield doc

    @requests(on="/sync_stream")
    def sync_stream(self, doc: Text) -> Iterator[Text]:
        raise RAISED[doc.text]
        yield doc


ENDPOINTS = ["/sync", "/batch", "/single", "/batched", "/stream", "/sync_stream"]
EXPECTED = {"text": (402, "pay", SENT), "data": (409, {"why": ["taken", 7]}, SENT)}


async def answered(deployment: Any, endpoint: str, text: str) -> None:
    if endpoint.endswith("stream"):
        async with aclosing(deployment.stream(endpoint, Text(text=text))) as steps:
            await anext(steps)
    else:
        await deployment.call(endpoint, [Text(text=text)])


async def raised(deployment: Any, endpoint: str, text: str) -> tuple[int, Any, Any]:
    """The status, detail and headers of what a call, or the first step of a stream, raises."""
    with pytest.raises(ExecutorHTTPError) as caught:
        await asyncio.wait_for(answered(deployment, endpoint, text), 20.0)
    assert isinstance(caught.value, HTTPException)
    return caught.value.status_code, caught.value.detail, caught.value.headers


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("text", EXPECTED)
async def test_over_http_its_status_detail_and_headers_are_the_answer(endpoint: str, text: str) -> None:
    async with client(JinaASGI(Deployment(Paywall))) as http:
        data = {"text": text} if endpoint.endswith("stream") else [{"text": text}]
        answer = await http.post(endpoint, json={"data": data})
    status, detail, headers = EXPECTED[text]
    assert (status, detail) == (answer.status_code, answer.json()["detail"])
    assert headers == {name: answer.headers[name] for name in headers}


async def test_on_a_websocket_they_are_in_the_last_event() -> None:
    async with websocket(JinaASGI(Deployment(Paywall)), "/-/ws") as socket:
        for number, endpoint in enumerate(ENDPOINTS):
            data = {"text": "data"} if endpoint.endswith("stream") else [{"text": "data"}]
            await socket.send({"id": number, "endpoint": endpoint, "data": data})
            event = await socket.receive()
            told = (event["event"], event["status"], event["detail"], event["error"]["headers"])
            assert ("error", *EXPECTED["data"]) == told


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_deployment_elsewhere_raises_it_here(protocol: str) -> None:
    with Deployment(Paywall, protocol=protocol, port=0, quiet=True) as served:
        async with Deployment(external=True, host="127.0.0.1", port=served.port, protocol=protocol) as remote:
            for endpoint in ENDPOINTS:
                for text, expected in EXPECTED.items():
                    assert expected == await raised(remote, endpoint, text)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_in_process_it_is_one_too_as_a_hosts_own_route_answers_it(endpoint: str) -> None:
    async with Deployment(Paywall) as deployment:
        assert EXPECTED["text"] == await raised(deployment, endpoint, "text")


@pytest.mark.processes
async def test_it_crosses_a_pool() -> None:
    async with ReplicaPool(Paywall, replicas=1) as pool:
        for endpoint in ENDPOINTS:
            for text, expected in EXPECTED.items():
                assert expected == await raised(pool, endpoint, text)


async def test_what_cannot_be_sent_of_it_is_left_out() -> None:
    async with Deployment(Paywall) as deployment:
        status, detail, headers = await raised(deployment, "/batch", "enormous")
    assert (402, {"x-plan": "gold"}) == (status, headers)
    assert detail.startswith("xxx")
    assert len(detail) < 2000


@pytest.mark.parametrize("text", ["no such status", "a property"])
async def test_one_that_cannot_be_read_is_the_executors_failure(text: str) -> None:
    async with Deployment(Paywall) as deployment:
        with pytest.raises(ExecutorError):
            await deployment.call("/sync", [Text(text=text)])
