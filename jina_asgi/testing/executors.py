"""The Executors that the conformance checks call; they are here so that another process can import them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any

import numpy as np
import orjson
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

from jina_asgi.errors import ExecutorInputError, Overloaded
from jina_asgi.executors.executor import Executor, requests
from jina_asgi.types import Context


class Text(BaseDoc):
    """A document of one string."""

    text: str


class Vector(BaseDoc):
    """A document of a vector, bytes, and another document."""

    vector: Annotated[NdArray[4], np.float32]  # type: ignore[valid-type]  # docarray's way to say a shape
    blob: bytes = b""
    inner: Text | None = None


class Tensor(BaseDoc):
    """A document of a tensor of any shape."""

    tensor: NdArray  # type: ignore[type-arg]  # of any dtype


class Scale(BaseModel):
    """Typed parameters."""

    by: int
    more: float = 0.5


class Probe(Executor):
    """Answers every kind of endpoint, and records the events of its calls, which `/seen` returns."""

    def __init__(self, fail: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if fail:
            raise ValueError("asked to fail")
        self.happened: list[str] = []

    @requests
    async def default(self, docs: DocList[Text], **_: Any) -> DocList[Text]:
        return DocList[Text]([Text(id=doc.id, text=f"default {doc.text}") for doc in docs])

    @requests(on="/any")
    def any(self, docs: DocList[Tensor]) -> DocList[Tensor]:
        return DocList[Tensor]([Tensor(tensor=doc.tensor * 2) for doc in docs])

    @requests(on="/seen")
    async def seen(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(text=text) for text in self.happened)

    @requests(on="/forget")
    async def forget(self, docs: DocList[Text]) -> DocList[Text]:
        """Clears the record: a Runner may reuse an Executor."""
        self.happened.clear()
        return docs

    @requests(on="/sync")
    def sync(self, docs: DocList[Text]) -> DocList[Text]:
        self.happened.extend(f"ran {doc.text}" for doc in docs)
        return DocList[Text]([Text(id=doc.id, text=doc.text.upper()) for doc in docs])

    @requests(on="/one")
    async def one(self, doc: Text) -> Text:
        return Text(id=doc.id, text=doc.text[::-1])

    @requests(on="/in_place")
    def in_place(self, docs: DocList[Text]) -> DocList[Text]:  # type: ignore[return]  # None: the docs were changed
        for doc in docs:
            doc.text += "!"

    @requests(on="/dict")
    def dict_(self, docs: DocList[Text]) -> DocList[Text]:
        return {"n": len(docs)}  # type: ignore[return-value]  # a dict is `__results__`, as in Jina

    @requests(on="/vector", idempotent=True)
    async def vector(self, docs: DocList[Vector], parameters: Scale) -> DocList[Vector]:
        for doc in docs:
            scaled: Any = doc.vector * parameters.by  # docarray's type: numpy does not know it
            doc.vector = scaled
        return docs

    @requests(on="/parameters")
    async def parameters(self, docs: DocList[Text], parameters: dict[str, Any], context: Context) -> DocList[Text]:
        own = "x-request-timeout"  # HTTP's own word for the deadline
        headers = {key: value for key, value in context.headers.items() if key.startswith("x-") and key != own}
        shown = dict(sorted(parameters.items()))
        facts = [repr(shown), context.request_id, repr(headers), str(context.deadline is not None)]
        return DocList[Text](Text(text=fact) for fact in facts)

    @requests(on="/context")
    async def context(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        return DocList[Text]([Text(text=_shown(context))])

    @requests(on="/context_stream")
    async def context_stream(self, doc: Text, context: Context) -> AsyncGenerator[Text, None]:
        yield Text(text=_shown(context))

    @requests(on="/busy")
    async def busy(self, docs: DocList[Text]) -> DocList[Text]:
        raise Overloaded("busy", retry_after=float(docs[0].text))

    @requests(on="/busy_stream")
    async def busy_stream(self, doc: Text) -> AsyncGenerator[Text, None]:
        yield doc
        raise Overloaded("busy", retry_after=float(doc.text))

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        self.happened.append("waiting")
        try:
            await asyncio.sleep(float(docs[0].text))
        except asyncio.CancelledError:
            self.happened.append("cancelled")
            raise
        return docs

    @requests(on="/block")
    def block(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        """Runs until its call is cancelled, or for the given number of seconds."""
        self.happened.append("blocking")
        end = time.monotonic() + float(docs[0].text)
        while time.monotonic() < end:
            if context.cancelled:
                self.happened.append("notified")
                break
            time.sleep(0.005)
        return docs

    @requests(on="/raise")
    async def raise_(self, docs: DocList[Text]) -> DocList[Text]:
        raise ValueError(docs[0].text)

    @requests(on="/refuse")
    def refuse(self, docs: DocList[Text]) -> DocList[Text]:
        raise ExecutorInputError(docs[0].text)

    @requests(on="/exit")
    def exit_(self, docs: DocList[Text]) -> DocList[Text]:
        raise SystemExit(3)

    @requests(on="/wrong")
    async def wrong(self, docs: DocList[Text]) -> DocList[Text]:
        return [1, 2]  # type: ignore[return-value]  # the mistake under test

    @requests(on="/stream")
    async def stream(self, doc: Text, parameters: dict[str, Any]) -> AsyncGenerator[Text, None]:
        try:
            for index in range(parameters.get("n", 3)):
                if index == parameters.get("fail_at"):
                    raise ValueError("in the middle")
                self.happened.append(f"made {doc.text}{index}")
                yield Text(text=f"{doc.text}{index}" + "." * parameters.get("size", 0))
                await asyncio.sleep(parameters.get("pause", 0))
        finally:
            self.happened.append(f"closed {doc.text}")

    @requests(on="/stream_sync")
    def stream_sync(self, doc: Text, parameters: dict[str, Any]) -> Generator[Text, None, None]:
        try:
            for index in range(parameters.get("n", 3)):
                if index == parameters.get("fail_at"):
                    raise ValueError("in the middle")
                time.sleep(parameters.get("pause", 0))
                yield Text(text=f"{doc.text}{index}")
        finally:
            self.happened.append(f"closed {doc.text}")


def _shown(context: Context) -> str:
    """A call's context as JSON: the time that is left, the caller's identity, and the headers."""
    left = None if context.deadline is None else context.deadline - time.monotonic()
    return orjson.dumps({"left": left, "identity": context.identity, "headers": dict(context.headers)}).decode()


class NoDefault(Executor):
    """Has no '/default'."""

    @requests(on="/only")
    async def only(self, docs: DocList[Text]) -> DocList[Text]:
        return docs
