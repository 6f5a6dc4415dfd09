"""HTTP bodies in Jina's protobuf: a DataRequestProto in, one out, and 415 where the extra is not there."""

import subprocess
import sys
import textwrap

import httpx
import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.proto import DocListProto
from docarray.typing import NdArray

from jina_asgi import Deployment, Executor, JinaASGI, requests
from jina_asgi.protocols.protobuf.messages import DataRequestProto
from jina_asgi.testing import client

PROTOBUF = "application/x-protobuf"
AS_PROTOBUF = {"content-type": PROTOBUF}


class Vector(BaseDoc):
    text: str = ""
    vector: NdArray | None = None


class Doubling(Executor):
    @requests
    async def double(self, docs: DocList[Vector], parameters: dict) -> DocList[Vector]:
        for doc in docs:
            doc.text = repr(sorted(parameters.items()))
            doc.vector = np.asarray(doc.vector) * 2  # type: ignore[assignment]  # docarray takes any array
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Vector) -> Vector:
        for letter in doc.text:
            yield Vector(text=letter)

    @requests(on="/counted")
    def counted(self, docs: DocList[Vector]) -> dict:
        return {"count": len(docs)}

    @requests(on="/large")
    def large(self, docs: DocList[Vector]) -> DocList[Vector]:
        return DocList[Vector]([Vector(vector=np.array(["no number"]))])


@pytest.fixture
async def http():
    async with client(JinaASGI(Deployment(uses=Doubling))) as http:
        yield http


def body(*docs: Vector, endpoint: str = "", **parameters: object) -> bytes:
    """What a speaker of Jina's protocol sends, its docs written by docarray."""
    message = DataRequestProto()
    message.header.request_id = "abc"
    message.header.exec_endpoint = endpoint
    message.parameters.update(parameters)
    message.data.docs.ParseFromString(DocList[Vector](docs).to_protobuf().SerializeToString())
    return message.SerializeToString()


def docs_of(message: DataRequestProto) -> DocList[Vector]:
    return DocList[Vector].from_protobuf(DocListProto.FromString(message.data.docs.SerializeToString()))


@pytest.mark.parametrize("path", ["/default", "/post"])
@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")
async def test_a_request_in_protobuf_is_answered_in_protobuf(http: httpx.AsyncClient, path: str) -> None:
    raw = body(Vector(id="x", vector=np.arange(3)), endpoint="/", n=1, half=0.5)
    answer = await http.post(path, content=raw, headers=AS_PROTOBUF)
    assert (200, PROTOBUF) == (answer.status_code, answer.headers["content-type"])
    message = DataRequestProto.FromString(answer.content)
    (doc,) = docs_of(message)
    assert ("x", "[('half', 0.5), ('n', 1)]", [0, 2, 4]) == (doc.id, doc.text, np.asarray(doc.vector).tolist())
    assert ("abc", {"n": 1, "half": 0.5}) == (message.header.request_id, dict(message.parameters))
    assert ["gateway", "executor"] == [route.executor for route in message.routes]


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")
async def test_accept_chooses_protobuf_for_a_request_in_json_and_json_for_one_in_protobuf(
    http: httpx.AsyncClient,
) -> None:
    asked = {"data": {"id": "x", "vector": [1, 2]}}
    answer = await http.post("/default", json=asked, headers={"accept": PROTOBUF})
    assert [2, 4] == np.asarray(docs_of(DataRequestProto.FromString(answer.content))[0].vector).tolist()
    raw = body(Vector(id="x", vector=np.ones(2)))
    answer = await http.post("/default", content=raw, headers={**AS_PROTOBUF, "accept": "application/json"})
    assert [2, 2] == answer.json()["data"][0]["vector"]


async def test_what_an_executor_counted_is_among_the_parameters(http: httpx.AsyncClient) -> None:
    answer = await http.post("/counted", content=body(Vector(), Vector()), headers=AS_PROTOBUF)
    (found,) = DataRequestProto.FromString(answer.content).parameters["__results__"].values()
    assert {"count": 2} == dict(found)


async def test_a_stream_asked_for_in_protobuf_is_one_of_events(http: httpx.AsyncClient) -> None:
    answer = await http.post("/stream", content=body(Vector(text="ab")), headers=AS_PROTOBUF)
    assert [b'"text":"a"', b'"text":"b"'] == [
        frame[frame.index(b'"text"') :][:10] for frame in answer.content.split(b"\r\n\r\n")[:2]
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"data": []}', (400, "InvalidRequest")),
        (body(Vector(text="a"))[:-1], (400, "InvalidRequest")),
        (b"\x22\x04\x0a\x02\x0a\xff", (400, "InvalidRequest")),
        (body(*[Vector()] * 10_001), (413, "TooLarge")),
        (DataRequestProto(header={"request_id": "a b"}).SerializeToString(), (422, "InvalidDocs")),
    ],
    ids=["JSON", "cut off", "no documents", "too many documents", "no request id"],
)
async def test_what_cannot_be_read_is_the_clients_fault(http: httpx.AsyncClient, raw: bytes, expected: tuple) -> None:
    answer = await http.post("/default", content=raw, headers=AS_PROTOBUF)
    assert expected == (answer.status_code, answer.json()["error"]["type"])


async def test_a_document_that_is_none_of_the_endpoints_is_reported_with_its_place(http: httpx.AsyncClient) -> None:
    message = DataRequestProto()
    message.data.docs.docs.add().data["text"].list.data.add().text = "no text"
    answer = await http.post("/default", content=message.SerializeToString(), headers=AS_PROTOBUF)
    assert ["body", "data", 0, "text"] == answer.json()["detail"][0]["loc"]


async def test_an_answer_that_protobuf_has_no_form_for_is_the_executors_fault(http: httpx.AsyncClient) -> None:
    answer = await http.post("/large", content=body(), headers=AS_PROTOBUF)
    assert (500, "ExecutorError") == (answer.status_code, answer.json()["error"]["type"])


@pytest.mark.processes
def test_without_the_extra_protobuf_is_415_and_names_it() -> None:
    program = """
        import asyncio, sys
        sys.modules["google.protobuf"] = None  # as if it were not installed
        from jina_asgi import Deployment, Executor, JinaASGI, requests
        from jina_asgi.testing import client

        class Echo(Executor):
            @requests
            async def echo(self, docs): return docs

        async def main():
            async with client(JinaASGI(Deployment(uses=Echo))) as http:
                refused = await http.post("/default", content=b"", headers={"content-type": "application/x-protobuf"})
                answered = await http.post("/default", json={"data": []}, headers={"accept": "application/x-protobuf"})
                print(refused.status_code, refused.json()["detail"], answered.headers["content-type"])

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], check=False, capture_output=True, text=True
    )
    assert "415 protobuf bodies need the extra: pip install 'jina-asgi[grpc]' application/json\n" == done.stdout, (
        done.stderr
    )


@pytest.mark.processes
def test_importing_the_library_does_not_import_protobuf() -> None:
    program = "import sys, jina_asgi; print('google.protobuf' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", program], text=True) == "False\n"
