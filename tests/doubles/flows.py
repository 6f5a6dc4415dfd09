"""Executors for the tests of Flows, and how a test finds one that is alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from docarray import BaseDoc, DocList

from jina_asgi import Context, Executor, Flow, requests
from jina_asgi.runners.local.runner import LocalRunner


class Doc(BaseDoc):
    text: str
    n: int = 0
    seen: list[str] = []


class Mark(Executor):
    """Adds its mark to every document, in place."""

    def __init__(self, mark: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mark = mark or self.runtime_args.name
        self.calls: list[list[str]] = []

    @requests(on="/go")
    def go(self, docs: DocList[Doc]) -> DocList[Doc]:  # type: ignore[return]  # changed in place
        self.calls.append([doc.text for doc in docs])
        for doc in docs:
            doc.text += self.mark
            doc.seen.append(self.mark)

    @requests(on="/parameters")
    async def parameters(self, docs: DocList[Doc], parameters: dict[str, Any]) -> DocList[Doc]:
        return {"saw": parameters}  # type: ignore[return-value]  # a dict is `__results__`


class Wait(Executor):
    """Waits for what is called like the document, or for ever; tells what became of it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.begun, self.free = asyncio.Event(), asyncio.Event()
        self.ended: list[str] = []

    @requests(on="/go")
    async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
        self.begun.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return docs


class Fail(Executor):
    @requests(on="/go")
    async def go(self, docs: DocList[Doc]) -> DocList[Doc]:
        raise ValueError("asked to fail")


class Tokens(Executor):
    """Streams a document for each letter; knows how many it made, and whether it was closed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.made, self.closed = 0, 0

    @requests(on="/go")
    async def go(self, doc: Doc) -> AsyncIterator[Doc]:
        try:
            for letter in doc.text:
                self.made += 1
                yield Doc(text=letter)
        finally:
            self.closed += 1


class Joined(Executor):
    """Says what it was given of whom."""

    @requests(on="/go")
    def go(
        self, docs: DocList[Doc], docs_matrix: list[Any] | None, docs_map: dict[str, Any], context: Context
    ) -> DocList[Doc]:
        matrix = [[doc.text for doc in part] for part in docs_matrix or []]
        by_name = {name: [doc.text for doc in part] for name, part in docs_map.items()}
        return {"docs": [doc.text for doc in docs], "matrix": matrix, "map": by_name}  # type: ignore[return-value]


def executor(flow: Flow, node: str) -> Any:
    """The living Executor of a node."""
    runner: Any = flow[node].runner
    while not isinstance(runner, LocalRunner):
        runner = runner.inner
    return runner._executor
