"""A user's mistakes: type checkers name each line that says so."""

from collections.abc import Iterator

from fastapi import FastAPI
from pydantic import BaseModel

from jina_asgi import Client, Deployment, Executor, Flow, GRPCSidecar, JinaASGI, dynamic_batching, mount, requests
from jina_asgi.fastapi import include, router
from jina_asgi.testing import websocket


class Text(BaseModel):
    text: str


class Length(BaseModel):
    length: int


class Reader(Executor):
    @requests(on="/length")
    def lengths(self, docs: list[Text]) -> list[Length]:
        return docs  # wrong

    @requests(on="/letters")
    def letters(self, doc: Text) -> Iterator[Text]:
        yield doc.text  # wrong


class Batched(Executor):
    @dynamic_batching(preferred_batch=4)  # wrong
    def batched(self) -> None: ...


misspelt = Deployment(Reader, replica=2)  # wrong
of_another_type = Deployment(Reader, replicas="two")  # wrong
in_a_flow = Flow(prot=1).add(uses=Reader)  # wrong
in_a_node = Flow().add(uses=Reader, repicas=2)  # wrong
loaded = Deployment.load_config("config.yml", replica=1)  # wrong
mounted = mount(FastAPI(), "/reader", Reader, wait_redy=True)  # wrong
application = JinaASGI(Reader, startup_wait="long")  # wrong
sidecar = GRPCSidecar(Reader, reflect=True)  # wrong
joined = Flow().add(uses=Reader).needs_all(nam="all")  # wrong
also_joined = Flow().needs(["a", "b"], replica=2)  # wrong
routed = router(Reader, wait_redy=True)  # wrong
socket = websocket(FastAPI(), header={})  # wrong
http = Client(port=8000)
later = Client(port=8000, header={})  # wrong


async def called(reader: Deployment) -> list[Text]:
    return await reader.call("/length", [Text(text="hi")], return_type=list[Length])  # wrong


async def streamed(reader: Deployment) -> None:
    async for word in reader.stream("/letters", Text(text="hi"), return_type=Text):
        print(word.length)  # wrong


def asked() -> list[Text]:
    include(FastAPI(), Reader, prefix="/reader", dependency=[])  # wrong
    Reader.serve(prot=8000)  # wrong
    http.post("/length", Text(text="a"), requests_size=10)  # wrong
    http.search(Text(text="a"), requests_size=10)  # wrong
    http.is_flow_ready(header={})  # wrong
    return http.post("/length", [Text(text="a")], return_type=list[Length])  # wrong
