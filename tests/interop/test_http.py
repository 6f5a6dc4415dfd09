"""Ours and a real Jina 3.34 over HTTP, in both directions."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi import Client, Deployment, Executor, JinaASGI, requests
from jina_asgi.codecs import codec
from jina_asgi.errors import ExecutorError
from jina_asgi.excepts import BadClientInput, BadServer
from jina_asgi.protocols.http_client import HttpRunner
from jina_asgi.types import Call
from tests.serving import Serving

pytestmark = pytest.mark.processes


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


class Model(Executor):
    """As in `jina_serves.py`."""

    @requests
    def default(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text="default " + doc.text) for doc in docs])

    @requests(on="/upper")
    def upper(self, docs: DocList[Text], parameters: dict, **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text=doc.text.upper() + str(parameters.get("end", ""))) for doc in docs])

    @requests(on="/double")
    def double(self, docs: DocList[Vector], **kwargs) -> DocList[Vector]:
        return DocList[Vector]([Vector(id=doc.id, vector=doc.vector * 2) for doc in docs])

    @requests(on="/fail")
    def fail(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        raise ValueError("boom")

    @requests(on="/dict")
    def answer_dict(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return {"n": len(docs)}  # type: ignore[return-value]

    @requests(on="/count")
    async def count(self, doc: Text, **kwargs) -> AsyncGenerator[Text, None]:
        for index in range(3):
            yield Text(text=f"{doc.text}{index}")


@pytest.fixture
def client(jina_port: int) -> Iterator:
    with Client(port=jina_port, protocol="http") as client:
        yield client


def test_our_client_asks_a_real_jina(client) -> None:
    two = [Text(id="1", text="a"), Text(id="2", text="b")]
    assert client.is_flow_ready()
    answered = client.post("/upper", two, parameters={"end": "!"}, return_type=DocList[Text])
    assert [("1", "A!"), ("2", "B!")] == [(doc.id, doc.text) for doc in answered]
    assert "A" == client.post("/upper", two[0], return_type=Text).text
    assert ["default a", "default b"] == [doc.text for doc in client.post("/", two)]
    assert ["default a", "default b"] == [doc.text for doc in client.post("/nowhere", two)]
    assert 0 == len(client.post("/upper"))
    [vector] = client.post("/double", [Vector(vector=np.array([1.0, 2.0]))], return_type=DocList[Vector])
    assert [2.0, 4.0] == vector.vector.tolist()


def test_many_requests_keep_their_order_where_that_is_asked(client) -> None:
    docs = (Text(text=str(index)) for index in range(250))
    answered = client.post("/upper", docs, request_size=10, results_in_order=True, return_type=DocList[Text])
    assert [str(index) for index in range(250)] == [doc.text for doc in answered]


def test_an_error_of_a_real_jina_is_the_servers(client) -> None:
    with pytest.raises(BadServer, match="boom") as raised:
        client.post("/fail", [Text(text="a")])
    assert isinstance(raised.value.__cause__, ExecutorError)
    assert 0 == len(client.post("/fail", [Text(text="a")], continue_on_error=True))


def test_what_a_real_executor_returns_as_a_dict_is_in_the_parameters(client) -> None:
    [response] = client.post("/dict", [Text(text="a")], return_responses=True)
    assert [{"n": 1.0}] == list(response.parameters["__results__"].values())


def test_a_stream_of_a_real_jina_takes_a_document_alone(client) -> None:
    assert ["q0", "q1", "q2"] == [doc.text for doc in client.stream_doc("/count", Text(text="q"), return_type=Text)]
    with pytest.raises(BadClientInput, match="takes no parameters"):
        list(client.stream_doc("/count", Text(text="q"), {"n": 1}))


async def test_a_real_jina_is_a_runner(jina_port) -> None:
    runner = HttpRunner(f"http://127.0.0.1:{jina_port}")
    texts = codec(Deployment(Model).endpoints["/upper"].input)
    async with runner.lifespan():
        assert {"/default", "/upper", "/double", "/fail", "/dict", "/count"} == set(runner.endpoints)
        result = await runner.call(Call("/upper", texts.docs([Text(id="1", text="a")]), {"end": "!"}))
        assert {"id": "1", "text": "A!"} == result.docs.typed[0]
        with pytest.raises(ExecutorError, match="boom"):
            await runner.call(Call("/fail", texts.docs([Text(text="a")])))
        stream = runner.stream(Call("/count", texts.docs([Text(text="q")])))
        assert ["q0", "q1", "q2"] == [docs.typed[0]["text"] async for docs in stream]


def test_jinas_client_asks_us(jina_asks: Callable[[int], str]) -> None:
    with Serving(JinaASGI(Deployment(Model, name="executor"), wait_ready=True)) as served:
        lines = jina_asks(served.port).splitlines()
    assert {
        "ready": True,
        "upper": ["A1", "B1"],
        "root": ["default a", "default b"],
        "unknown": ["default a", "default b"],
        "double": [2.0, 4.0],
        "fail": "ValueError",
        "many": 250,
        "dict": {"n": 2.0},
        "stream": ["q0", "q1", "q2"],
    } == dict(json.loads(line) for line in lines if line.startswith("["))  # it logs to its output too
