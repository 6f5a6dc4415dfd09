"""The Executor that the tests of shared memory run; replicas import it from here."""

from __future__ import annotations

from typing import Any

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from jina_asgi import Executor, dynamic_batching, requests


class Array(BaseDoc):
    text: str = ""
    tensor: NdArray


class Nothing(BaseDoc):
    """A document without an array."""


class Tensors(Executor):
    """Does to arrays what people do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept: list[Any] = []

    @requests(on="/echo")
    def echo(self, docs: DocList[Array]) -> DocList[Array]:
        return docs

    @requests(on="/add")
    def add(self, docs: DocList[Array]) -> DocList[Array]:
        for doc in docs:
            doc.tensor += 1
        return docs

    @requests(on="/keep")
    def keep(self, docs: DocList[Array]) -> DocList[Nothing]:
        self.kept += [doc.tensor for doc in docs]
        return DocList[Nothing]([Nothing() for _ in docs])

    @requests(on="/kept")
    def all_kept(self, docs: DocList[Nothing]) -> DocList[Array]:
        return DocList[Array]([Array(tensor=np.array([kept[0], kept[-1], kept.sum()])) for kept in self.kept])

    @dynamic_batching(preferred_batch_size=4, timeout=200, gather="window")
    @requests(on="/poisoned", idempotent=True)
    def poisoned(self, docs: DocList[Array]) -> DocList[Array]:
        for doc in docs:
            doc.tensor += 1
        if any(doc.text == "poison" for doc in docs):
            raise ValueError("poison")
        return docs

    @requests(on="/stream")
    def stream(self, doc: Array) -> Array:
        for step in range(6):
            yield Array(tensor=doc.tensor + step)
