"""Jina 3.34, a Deployment over HTTP. serve_jina.py PORT [MODEL]."""

import sys
import warnings

warnings.filterwarnings("ignore")

from batch_models import BATCH, MODELS, WINDOW_MS
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from jina import Deployment, Executor, dynamic_batching, requests
from work import TOKENS, token


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    vector: NdArray


class Work(Executor):
    @requests(on="/echo")
    async def echo(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return docs

    @dynamic_batching(preferred_batch_size=BATCH, timeout=WINDOW_MS)
    @requests(on="/run")
    def run(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text](Text(text=text) for text in MODELS[sys.argv[2]]([doc.text for doc in docs]))

    @requests(on="/stream")
    async def stream(self, doc: Text, **kwargs) -> Text:
        for i in range(TOKENS):
            yield Text(text=token(i))

    @requests(on="/double")
    async def double(self, docs: DocList[Vector], **kwargs) -> DocList[Vector]:
        for doc in docs:
            doc.vector = doc.vector * 2
        return docs


if __name__ == "__main__":
    with Deployment(uses=Work, protocol="http", port=int(sys.argv[1]), host="127.0.0.1") as deployment:
        deployment.block()
