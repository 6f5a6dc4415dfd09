"""This library, on uvicorn. serve_jina_asgi.py PORT ENDPOINT [mounted]."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import numpy as np
import uvicorn
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from fastapi import FastAPI
from pydantic import BaseModel
from work import DIM, TOKENS, token

from jina_asgi import Executor, JinaASGI, mount, requests


class Text(BaseModel):
    text: str


class Vector(BaseDoc):
    vector: Annotated[NdArray[DIM], np.float32]  # type: ignore[valid-type]


class Work(Executor):
    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/echo_sync")
    def echo_sync(self, docs: list[Text]) -> list[Text]:
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Text) -> AsyncIterator[Text]:
        for i in range(TOKENS):
            yield Text(text=token(i))
            await asyncio.sleep(0)

    @requests(on="/double")
    async def double(self, docs: DocList[Vector]) -> DocList[Vector]:
        for doc in docs:
            np.multiply(doc.vector, 2, out=doc.vector)  # assigning a field would make docarray validate it again
        return docs


if __name__ == "__main__":
    port, *how = sys.argv[1:]
    app: JinaASGI | FastAPI = JinaASGI(Work, metrics=how == ["metrics"])
    if how == ["mounted"]:
        app = FastAPI()
        mount(app, "/lm", Work)
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
