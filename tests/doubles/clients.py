"""What the Client's tests ask: one Executor, and an application that fails on its way there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from docarray import BaseDoc, DocList
from pydantic import BaseModel

from jina_asgi import Context, Executor, ExecutorInputError, requests
from jina_asgi.protocols.http.exchange import send_json


class Text(BaseDoc):
    text: str


class Options(BaseModel):
    """Parameters as a model."""

    end: str = "!"


class Model(Executor):
    """Its asynchronous endpoints run beside each other."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.met, self.arrived, self.closed = asyncio.Event(), 0, [0]
        self.texts: list[str] = []

    @requests
    async def default(self, docs: DocList[Text]) -> DocList[Text]:
        return DocList[Text](Text(id=doc.id, text=f"default {doc.text}") for doc in docs)

    @requests(on="/upper", idempotent=True)
    async def upper(self, docs: DocList[Text], parameters: dict[str, Any]) -> DocList[Text]:
        return DocList[Text](Text(id=doc.id, text=doc.text.upper() + parameters.get("end", "")) for doc in docs)

    @requests(on="/index")
    async def index(self, docs: DocList[Text]) -> dict[str, Any]:
        return {"n": len(docs)}

    @requests(on="/meet")
    async def meet(self, docs: DocList[Text], parameters: dict[str, Any]) -> DocList[Text]:
        """Answers once as many calls as `parties` are here at the same time."""
        self.arrived += 1
        if self.arrived >= parameters["parties"]:
            self.met.set()
        async with asyncio.timeout(20):
            await self.met.wait()
        return docs

    @requests(on="/first_last")
    async def first_last(self, docs: DocList[Text]) -> DocList[Text]:
        """The first document waits until the last has been answered."""
        if docs[0].text == "first":
            async with asyncio.timeout(20):
                await self.met.wait()
        if docs[0].text == "last":
            self.met.set()
        return docs

    @requests(on="/odd_fails")
    async def odd_fails(self, docs: DocList[Text]) -> DocList[Text]:
        if int(docs[0].text) % 2:
            raise ExecutorInputError(f"{docs[0].text} is odd")
        return docs

    @requests(on="/facts")
    async def facts(self, docs: DocList[Text], context: Context) -> DocList[Text]:
        facts = [context.headers.get(name, "") for name in ("x-mine", "authorization", "cookie")]
        return DocList[Text](Text(text=fact) for fact in [*facts, str(context.deadline is not None)])

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.sleep(30)
        return docs

    @requests(on="/count")
    async def count(self, doc: Text, parameters: dict[str, Any]) -> AsyncGenerator[Text, None]:
        try:
            for index in range(parameters.get("n", 3)):
                if index == parameters.get("fail_at"):
                    raise ExecutorInputError("enough")
                yield Text(text=f"{doc.text}{index}")
        finally:
            self.closed.append(index)
            self.met.set()

    @requests(on="/closed")
    async def when_closed(self, docs: DocList[Text]) -> DocList[Text]:
        """Answers once a stream was closed: at which step."""
        async with asyncio.timeout(20):
            await self.met.wait()
        return DocList[Text]([Text(text=str(self.closed[-1]))])


class Failing:
    """An application that answers its first requests to an endpoint with problems, and passes on all others."""

    def __init__(self, app: Any, *problems: str) -> None:
        self._app, self._problems, self.posts = app, list(problems), 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self.posts += 1
            if self._problems:
                error = {"type": self._problems.pop(0), "id": "x", "retriable": True}
                await send_json(send, 503, {"detail": "not now", "error": error}, [(b"retry-after-ms", b"1")])
                return
        await self._app(scope, receive, send)
