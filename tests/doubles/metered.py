"""Reads the page of metrics, and an app for servers with metrics."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping

from docarray import BaseDoc, DocList
from prometheus_client.parser import text_string_to_metric_families

from jina_asgi import Deployment, Executor, JinaASGI, Overloaded, dynamic_batching, requests


class Text(BaseDoc):
    text: str = ""
    pid: int = 0


class Model(Executor):
    """Endpoints that end in each way."""

    @requests(on="/echo")
    async def echo(self, docs: DocList[Text]) -> DocList[Text]:
        for doc in docs:
            doc.pid = os.getpid()
        return docs

    @dynamic_batching(preferred_batch_size=4, timeout=5)
    @requests(on="/batched")
    async def batched(self, docs: DocList[Text]) -> DocList[Text]:
        return docs

    @requests(on="/bad")
    async def bad(self, docs: DocList[Text]) -> DocList[Text]:
        raise ValueError("a bad document")

    @requests(on="/full")
    async def full(self, docs: DocList[Text]) -> DocList[Text]:
        raise Overloaded("full")

    @requests(on="/wait")
    async def wait(self, docs: DocList[Text]) -> DocList[Text]:
        await asyncio.Event().wait()
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Text) -> AsyncIterator[Text]:
        """Three documents; fails after the first one of the text "bad", and waits for good after that of "wait"."""
        for _ in range(3):
            yield doc
            if doc.text == "bad":
                raise ValueError("a bad document")
            if doc.text == "wait":
                await asyncio.Event().wait()


#: By name and label values, sorted by the label's name.
Samples = Mapping[tuple[str, ...], float]


def samples(page: str) -> dict[tuple[str, ...], float]:
    """The samples of a page: (name, label=value, ...) to its value."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def of(found: Samples, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of one name that have these labels, by their other labels; without those that are zero."""
    return {
        tuple(label for label in key[1:] if label not in labels): value
        for key, value in found.items()
        if key[0] == name and value and {*labels} <= {*key}
    }


app = JinaASGI(Deployment(Model, name="served"), metrics=True)
pooled = JinaASGI(Deployment(Model, name="served", replicas=2), metrics=True)
own_port = JinaASGI(Deployment(Model, name="served"), port_monitoring=int(os.environ.get("PORT_MONITORING", "0")))
