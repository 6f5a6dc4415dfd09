"""One Executor over gRPC or another protocol until the input ends: grpc_serves.py deployment|flow PORT [PROTOCOL].

In Jina's own environment by Jina, in ours by us.
"""

import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore")

from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

try:
    from jina import Deployment, Executor, Flow, requests
except ImportError:
    from jina_asgi import Deployment, Executor, Flow, requests


RUNS: list[int] = []


class Text(BaseDoc):
    text: str = ""


class Inner(BaseDoc):
    vector: NdArray


class Whole(BaseDoc):
    name: str = ""
    count: int = 0
    share: float = 0.0
    is_so: bool = False
    blob: bytes = b""
    words: list[str] = []
    inner: Inner
    inners: DocList[Inner] = DocList[Inner]()


class Options(BaseModel):
    times: int = 1
    end: str = ""


class Model(Executor):
    @requests
    def default(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text="default " + doc.text) for doc in docs])

    @requests(on="/upper")
    def upper(self, docs: DocList[Text], parameters: dict, **kwargs) -> DocList[Text]:
        end = parameters.get("end", "")
        end = f"{end:g}" if isinstance(end, float | int) else end
        return DocList[Text]([Text(id=doc.id, text=doc.text.upper() + end) for doc in docs])

    @requests(on="/typed")
    def typed(self, docs: DocList[Text], parameters: Options, **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text=doc.text * parameters.times + parameters.end) for doc in docs])

    @requests(on="/single")
    def single(self, doc: Text, **kwargs) -> Text:
        return Text(id=doc.id, text=doc.text[::-1])

    @requests(on="/whole")
    def whole(self, docs: DocList[Whole], **kwargs) -> DocList[Whole]:
        for doc in docs:
            doubled: Any = doc.inner.vector * 2
            doc.inner.vector = doubled
            doc.count += 1
        return docs

    @requests(on="/size")
    def size(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(text=str(len(docs)))])

    @requests(on="/fail")
    def fail(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        if any(doc.text == "bad" for doc in docs):
            raise ValueError("boom")
        return docs

    @requests(on="/dict")
    def answer_dict(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return {"n": len(docs)}  # type: ignore[return-value]

    @requests(on="/poison")
    def poison(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        RUNS.append(1)
        raise ValueError("poison")

    @requests(on="/runs")
    def runs(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text]([Text(text=str(len(RUNS)))])

    @requests(on="/count")
    async def count(self, doc: Text, **kwargs) -> Text:
        for index in range(3):
            yield Text(text=f"{doc.text}{index}")


if __name__ == "__main__":
    kind, port, protocol = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] or ["grpc"])[0]
    ours = {"reflection": True} if protocol == "grpc" and Deployment.__module__.startswith("jina_asgi") else {}
    served = Deployment(uses=Model, name="model", port=port, host="127.0.0.1", protocol=protocol, **ours)
    if kind == "flow":
        served = Flow(port=port, host="127.0.0.1", protocol=protocol, **ours).add(uses=Model, name="model")
    with served:
        print("serving", flush=True)
        sys.stdin.read()
