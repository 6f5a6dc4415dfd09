"""What the tests of the page serve: a Flow of four nodes with a batched one, replicas, a stream and pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import ImageBytes, NdArray
from pydantic import BaseModel, Field

from jina_asgi import Executor, Flow, JinaASGI, requests


class Origin(BaseModel):
    source: str = Field("typed", description="where the text is from")
    page: int | None = None


class Text(BaseModel):
    text: str = Field(description="what is said")
    times: int = Field(1, ge=1, le=5)
    mood: Literal["calm", "glad", "stern"] = "calm"
    loud: bool = False
    origin: Origin = Origin()
    tags: list[str] = []


class Pace(BaseModel):
    pause: float = Field(0.02, ge=0, le=1, description="seconds between words")


class Photo(BaseDoc):
    image: ImageBytes
    pixels: NdArray | None = None
    caption: str = ""


class Clean(Executor):
    @requests(on="/speak")
    async def clean(self, docs: list[Text]) -> list[Text]:
        await asyncio.sleep(0.01)
        return docs


class Encode(Executor):
    @requests(on="/speak")
    async def encode(self, docs: list[Text]) -> list[Text]:
        await asyncio.sleep(0.02)
        return docs


class Voice(Executor):
    @requests(on="/speak")
    def speak(self, docs: list[Text]) -> list[Text]:
        for doc in docs:
            doc.text = " ".join([doc.text] * doc.times)
            doc.text = doc.text.upper() if doc.loud else doc.text
        return docs

    @requests(on="/tell")
    async def tell(self, doc: Text, parameters: Pace) -> AsyncIterator[Text]:
        while True:
            for word in doc.text.split():
                await asyncio.sleep(parameters.pause)
                yield Text(text=f"{word} ")

    @requests(on="/develop")
    def develop(self, docs: DocList[Photo]) -> DocList[Photo]:
        for doc in docs:
            if doc.pixels is not None:
                doc.pixels = np.subtract(255, doc.pixels)
        return docs


batched = {"/speak": {"preferred_batch_size": 8, "timeout": 20}}
flow = (
    Flow(name="speech")
    .add(uses=Clean, name="clean")
    .add(uses=Encode, name="encode", needs="clean", uses_dynamic_batching=batched)
    .add(uses=Encode, name="rank", needs="clean", replicas=2)
    .add(uses=Voice, name="voice", needs=["encode", "rank"])
)
asgi = JinaASGI(flow, playground=True, title="Speech")
