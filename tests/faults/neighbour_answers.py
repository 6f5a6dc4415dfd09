"""The most expensive answers of each kind, made before they are asked for, and how long the loop of their Executor is held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi import Executor, requests


class Small(BaseDoc):
    text: str = ""
    n: int = 0


class Large(BaseDoc):
    text: str = ""
    blob: bytes = b""
    numbers: list[float] = []
    texts: list[str] = []
    vector: NdArray | None = None
    any: Any = None
    parts: DocList[Small] | None = None


def one(**fields: Any) -> DocList[Large]:
    return DocList[Large]([Large(id="a", **fields)])


def nested(count: int) -> list[Any]:
    """So many mappings, a hundred each in lists that lie in mappings."""
    return [{"of": [{"n": n, "texts": ["a"]} for n in range(100)], "at": at} for at in range(count // 100)]


#: What is answered, by kind: of about so many megabytes as JSON, or as memory for what becomes larger.
KINDS: dict[str, Callable[[int], DocList[Any]]] = {
    "documents": lambda size: DocList[Large]([Large(id="a", text="a" * 400) for _ in range(size * 2_000)]),
    "small documents": lambda size: DocList[Large]([Large(id="a") for _ in range(min(size * 5_000, 100_000))]),
    "documents within": lambda size: one(
        parts=DocList[Small]([Small(id="a", text="ab") for _ in range(size * 25_000)])
    ),
    "numbers": lambda size: one(numbers=[n / 3 for n in range(size * 50_000)]),
    "texts": lambda size: one(texts=["abcdefg"] * (size * 100_000)),
    "a long text": lambda size: one(text="a" * (size * 1_000_000)),
    "a long text with escapes": lambda size: one(text="\n" * (size * 500_000)),
    "a long text of other letters": lambda size: one(text="ж" * (size * 500_000)),
    "bytes": lambda size: one(blob=b"a" * (size * 750_000)),
    "a vector": lambda size: one(vector=np.linspace(0, 1, size * 220_000, dtype=np.float32)),
    "a matrix": lambda size: one(vector=np.ones((size * 250, 1_000), np.float32)),
    "nested mappings": lambda size: one(any=nested(size * 20_000)),
    "a mapping": lambda size: one(any={f"k{n}": n for n in range(size * 60_000)}),
}


class Holds:
    """The longest time for which a loop was held, in seconds, since it was asked last.

    The time in which this process did not run, as on a busy machine, does not count.
    """

    def __init__(self) -> None:
        self._longest = 0.0
        self._watching: asyncio.Task[None] | None = None

    def longest(self) -> float:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        found, self._longest = self._longest, 0.0
        return found

    async def _watch(self) -> None:
        pause = 0.005
        while True:
            began, used = time.perf_counter(), time.process_time()
            await asyncio.sleep(pause)
            late = time.perf_counter() - began - pause
            self._longest = max(self._longest, min(late, time.process_time() - used))


class Answers(Executor):
    """Answers what it has made before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made: dict[str, DocList[Any]] = {}
        self._holds = Holds()

    @requests(on="/prepare")
    def prepare(self, docs: DocList[Large], parameters: dict[str, Any]) -> DocList[Large]:
        self._made = {parameters["kind"]: KINDS[parameters["kind"]](parameters["size"])}
        return DocList[Large]()

    @requests(on="/answer")
    def answer(self, docs: DocList[Large], parameters: dict[str, Any]) -> DocList[Large]:
        return self._made[parameters["kind"]]

    @requests(on="/steps")
    async def steps(self, doc: Large, parameters: dict[str, Any]) -> AsyncIterator[Large]:
        for made in self._made[doc.text][:3]:
            yield made

    @requests(on="/echo")
    def echo(self, docs: DocList[Large], parameters: dict[str, Any]) -> DocList[Large]:
        return docs

    @requests(on="/count")
    async def count(self, docs: DocList[Large]) -> DocList[Large]:
        return DocList[Large]([Large(id="a", text=str(len(docs)))])

    @requests(on="/held")
    async def holds(self, docs: DocList[Large]) -> DocList[Large]:
        return DocList[Large]([Large(id="a", any=self._holds.longest())])
