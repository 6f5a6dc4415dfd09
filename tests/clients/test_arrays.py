"""`return_type=numpy.ndarray`: the tensors of all answers in one array, in the order of the inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi import Client, Executor, JinaASGI, requests
from jina_asgi.clients.sync import SyncClient
from jina_asgi.documents.msgpack import unpack
from jina_asgi.excepts import BadClient, BadServer
from jina_asgi.testing import client
from tests.doubles.uvicorn_server import Serving


class Number(BaseDoc):
    value: int


class Vector(BaseDoc):
    vector: NdArray
    words: list[str] = []


class Pair(BaseDoc):
    left: NdArray
    right: NdArray


class Vectors(Executor):
    @requests(on="/vectors")
    async def vectors(self, docs: DocList[Number]) -> DocList[Vector]:
        await asyncio.sleep(0.02 / (1 + docs[0].value))  # the first request is the last to be answered
        return DocList[Vector](
            Vector(vector=np.full((2, 3), doc.value, np.float16), words=["a"] * doc.value) for doc in docs
        )

    @requests(on="/ragged")
    def ragged(self, docs: DocList[Number]) -> DocList[Vector]:
        return DocList[Vector](Vector(vector=np.zeros(doc.value)) for doc in docs)

    @requests(on="/pairs")
    def pairs(self, docs: DocList[Number]) -> DocList[Pair]:
        return DocList[Pair](Pair(left=np.zeros(1), right=np.ones(1)) for _ in docs)

    @requests(on="/numbers")
    def numbers(self, docs: DocList[Number]) -> DocList[Number]:
        return docs

    @requests(on="/steps")
    async def steps(self, doc: Number) -> Vector:
        for number in range(doc.value):
            yield Vector(vector=np.full(2, number, np.float32))


NUMBERS = [Number(value=value) for value in range(7)]
EXPECTED = np.stack([np.full((2, 3), value, np.float16) for value in range(7)])


@pytest.fixture
def asking() -> Iterator[SyncClient]:
    with Serving(JinaASGI(Vectors, wait_ready=True)) as served, Client(f"http://127.0.0.1:{served.port}") as asking:
        yield asking


@pytest.mark.parametrize("request_size", [1, 3, 0])
def test_the_array_has_the_order_of_the_inputs_and_the_dtype_of_the_server(asking, request_size: int) -> None:
    found = asking.post("/vectors", NUMBERS, request_size=request_size, return_type=np.ndarray)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, EXPECTED)
    found[0] = 1  # it is the caller's own


def test_over_a_websocket_they_are_read_too() -> None:
    with Serving(JinaASGI(Vectors, wait_ready=True)) as served:
        with Client(f"ws://127.0.0.1:{served.port}") as asking:
            found = asking.post("/vectors", NUMBERS, request_size=3, return_type=np.ndarray)
            assert len(asking.post("/vectors", [], return_type=np.ndarray)) == 0
            with pytest.raises(BadClient, match="same shape"):
                asking.post("/ragged", NUMBERS, return_type=np.ndarray)
    np.testing.assert_array_equal(found, EXPECTED)


async def test_the_asynchronous_client_gives_an_array_for_each_request_in_order() -> None:
    asgi = JinaASGI(Vectors, wait_ready=True)
    async with asgi.lifespan(), Client(app=asgi, asyncio=True) as asking:
        found = [part async for part in asking.post("/vectors", NUMBERS, request_size=3, return_type=np.ndarray)]
    assert [len(part) for part in found] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found), EXPECTED)


def test_no_inputs_are_an_empty_array(asking) -> None:
    assert len(asking.post("/vectors", [], return_type=np.ndarray)) == 0


def test_responses_hold_arrays_and_are_plain_data_when_asked(asking) -> None:
    [response] = asking.post("/vectors", NUMBERS[:1], return_type=np.ndarray, return_responses=True)
    assert response.docs.shape == (1, 2, 3)
    assert response.to_dict()["data"] == [[[0.0] * 3] * 2]


def test_a_request_that_fails_leaves_no_rows(asking) -> None:
    with pytest.raises(BadServer):
        asking.post("/vectors", NUMBERS, parameters={"wrong": object()}, return_type=np.ndarray)
    kept = asking.post("/nowhere", NUMBERS, return_type=np.ndarray, continue_on_error=True)
    assert len(kept) == 0


def test_a_stream_gives_the_array_of_each_step(asking) -> None:
    found = list(asking.stream_doc("/steps", Number(value=3), return_type=np.ndarray))
    np.testing.assert_array_equal(np.stack(found), [[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("/pairs", "expected one field with tensors of one shape, got left, right"),
        ("/numbers", "expected one field with tensors of one shape, got none"),
        ("/ragged", "does not fit return_type .numpy.ndarray.: all input arrays must have the same shape"),
    ],
)
def test_an_answer_that_is_no_array_is_refused(asking, endpoint: str, why: str) -> None:
    with pytest.raises(BadClient, match=why):
        asking.post(endpoint, NUMBERS, return_type=np.ndarray)


async def test_a_json_request_may_have_its_answer_in_columns() -> None:
    async with client(JinaASGI(Vectors)) as http:
        answer = await http.post(
            "/vectors",
            json={"data": [{"value": 1}, {"value": 2}]},
            headers={"accept": "application/json;q=0.5, application/msgpack; columns=true"},
        )
    assert answer.headers["content-type"] == "application/msgpack"
    columns = unpack(answer.content)["data"]["columns"]
    np.testing.assert_array_equal(columns["vector"], EXPECTED[1:3])
    assert columns["words"] == [["a"], ["a", "a"]]
