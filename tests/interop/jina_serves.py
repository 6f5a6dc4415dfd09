"""A real Jina, serving over HTTP until its input ends: jina_serves.py deployment|flow. Runs in Jina's own environment."""

import sys
import warnings

warnings.filterwarnings("ignore")

from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from jina import Deployment, Executor, Flow, requests


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


class Model(Executor):
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
    async def count(self, doc: Text, **kwargs) -> Text:
        for index in range(3):
            yield Text(text=f"{doc.text}{index}")


if __name__ == "__main__":
    served = Deployment(uses=Model, protocol="http", port=int(sys.argv[2]), host="127.0.0.1")
    if sys.argv[1] == "flow":
        served = Flow(protocol="http", port=int(sys.argv[2]), host="127.0.0.1").add(uses=Model, name="model")
    with served:
        print("serving", flush=True)
        sys.stdin.read()
