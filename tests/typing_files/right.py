"""A user's program: type checkers have nothing to say of it."""

from collections.abc import AsyncIterator, Iterator, Mapping

from fastapi import FastAPI
from pydantic import BaseModel

from jina_asgi import (
    Client,
    Deployment,
    Executor,
    Flow,
    GRPCSidecar,
    JinaASGI,
    Limits,
    dynamic_batching,
    mount,
    requests,
)
from jina_asgi.testing import client


class Text(BaseModel):
    text: str


class Length(BaseModel):
    length: int


class Options(BaseModel):
    upper: bool = False


class Reader(Executor):
    @requests(on="/length")
    def lengths(self, docs: list[Text], parameters: Options) -> list[Length]:
        return [Length(length=len(doc.text)) for doc in docs]

    @dynamic_batching(
        preferred_batch_size=4, timeout=20, cost="len:text", max_cost=100, tenant="header:x", tenant_weights={"a": 2}
    )
    @requests(on="/batched")
    async def batched(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/one")
    async def one(self, doc: Text) -> Length:
        return Length(length=len(doc.text))

    @requests(on="/words")
    async def words(self, doc: Text) -> AsyncIterator[Text]:
        for word in doc.text.split():
            yield Text(text=word)

    @requests(on="/letters")
    def letters(self, doc: Text) -> Iterator[Text]:
        for letter in doc.text:
            yield Text(text=letter)


async def auth(headers: Mapping[str, str], endpoint: str) -> str | None:
    return headers.get("authorization")


reader = Deployment(
    Reader,
    name="reader",
    replicas=2,
    env={"CUDA_VISIBLE_DEVICES": "RR", "OMP_NUM_THREADS": 1},
    uses_dynamic_batching={"/length": {"preferred_batch_size": 4, "timeout": 20}},
    timeout_ready=60_000,
)
flow = Flow(port=12345, protocol="http").add(uses=Reader, name="reader", uses_with={}, timeout_send=500)
app = FastAPI()
mount(app, "/reader", reader, auth=auth, limits=Limits(docs=10), grpc="127.0.0.1:50051")
asgi = JinaASGI(flow, cors=["https://example.com"], startup_wait=1.0)
sidecar = GRPCSidecar(Reader, "127.0.0.1:0", reflection=True)


async def called() -> int:
    async with reader:
        lengths = await reader.call("/length", [Text(text="hi")], parameters=Options(), return_type=list[Length])
        async for word in reader.stream("/words", Text(text="a b"), return_type=Text):
            print(word.text)
        return lengths[0].length


def asked() -> list[Length]:
    with Client(host="http://localhost:8000/reader", headers={"x-who": "me"}) as http:
        for word in http.stream_doc("/words", Text(text="a b"), return_type=Text, timeout=3.0):
            print(word.text)
        http.post("/length", Text(text="a"), on_done=print, request_size=10)
        return http.post("/length", [Text(text="a")], return_type=list[Length], timeout=1.0)


async def asked_asynchronously() -> int:
    total = 0
    http = Client(port=8000, protocol="http", asyncio=True)
    async for lengths in http.post("/length", [Text(text="a")], return_type=list[Length]):
        total += sum(one.length for one in lengths)
    async for word in http.stream_doc("/words", Text(text="a b"), return_type=Text):
        total += len(word.text)
    return total


def served() -> list[Length]:
    with flow:
        return flow.post("/length", [Text(text="a")], return_type=list[Length])


async def tested() -> int:
    async with client(asgi) as http:
        return (await http.post("/length", json={"data": [{"text": "hi"}]})).status_code
