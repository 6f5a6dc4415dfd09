"""The Client over the JSON WebSocket: the same calls, answers and errors as over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from docarray import DocList

from jina_asgi import Client, JinaASGI
from jina_asgi.excepts import BadServer
from tests.doubles.clients import Model, Text
from tests.doubles.uvicorn_server import Serving, free_port, serving
from tests.doubles.websockets import Spoken
from tests.doubles.websockets import Text as Said

AB = [Text(text="a"), Text(text="b")]


@pytest.fixture
def served() -> Iterator[Serving]:
    with Serving(JinaASGI(Model, wait_ready=True)) as served:
        yield served


@pytest.fixture(params=["protocol", "scheme"])
def client(served: Serving, request: pytest.FixtureRequest) -> Iterator[Any]:
    by_name: Any = Client(port=served.port, protocol="websocket")
    with by_name if request.param == "protocol" else Client(f"ws://127.0.0.1:{served.port}") as client:
        yield client


def test_documents_go_out_and_come_back_in_the_type_that_is_asked_for(client: Any) -> None:
    answered = client.post("/upper", AB, parameters={"end": "!"}, return_type=DocList[Text])
    assert ["A!", "B!"] == [doc.text for doc in answered]


def test_many_requests_share_few_sockets(client: Any) -> None:
    answered = client.post("/upper", (Text(text=str(n)) for n in range(500)), request_size=5, results_in_order=True)
    assert [str(n) for n in range(500)] == [doc.text for doc in answered]


async def test_streams_errors_and_a_stream_left_early() -> None:
    asgi, port = JinaASGI(Spoken, wait_ready=True), free_port()
    async with asgi.lifespan(), serving(asgi, port=port):
        async with Client(port=port, protocol="websocket", asyncio=True) as client:
            found = [doc.text async for doc in client.stream_doc("/count", Said(text="t"), return_type=Said)]
            assert ["t0", "t1", "t2"] == found
            steps = client.stream_doc("/idle", Said(text="left", n=1), return_type=Said)
            assert "left" == (await anext(steps)).text
            await steps.aclose()
            [closed] = [docs async for docs in client.post("/closed", Said(text="left"), return_type=list[Said])]
            assert 1 == len(closed)
            with pytest.raises(BadServer):
                async for _ in client.stream_doc("/fail", Said(n=0), return_type=Said):
                    pass
            assert await client.is_flow_ready()


def test_without_a_server_the_client_says_so() -> None:
    with Client(port=free_port(), protocol="websocket") as client, pytest.raises(ConnectionError):
        client.post("/upper", AB)
