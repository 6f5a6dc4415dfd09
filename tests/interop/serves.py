"""One Executor, over each protocol on a port of its own, until the input ends: serves.py deployment|flow PROTOCOL=PORT...

In Jina's own environment by Jina, in ours by us.
"""

import asyncio
import sys
import warnings
from contextlib import ExitStack
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
    inner: Inner = Inner(vector=[0.0])
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

    @requests(on="/later")
    async def later(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        """The last is answered first, and none before Jina's have read all requests: else they may wait for ever."""
        await asyncio.sleep(0.5 - int(docs[0].text) / 1000)
        return docs

    @requests(on="/bytes")
    def bytes(self, docs: DocList[Whole], **kwargs) -> DocList[Whole]:
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
    kind, ports = sys.argv[1], {name: int(port) for name, _, port in (word.partition("=") for word in sys.argv[2:])}
    is_ours = Deployment.__module__.startswith("jina_asgi")
    with ExitStack() as serving:
        for protocol, port in ports.items():
            address = {"protocol": protocol, "port": port, "host": "127.0.0.1"}
            options = {"reflection": True} if is_ours and protocol == "grpc" else {}  # a Jina Flow asks for it
            if kind == "flow":
                serving.enter_context(Flow(**address, **options).add(uses=Model, name="model"))
            else:
                serving.enter_context(Deployment(uses=Model, name="model", **address, **options))
        print("serving", flush=True)
        sys.stdin.read()
