"""What tests of uploads serve: an Executor that reads the files it is given the paths of, in the worker and in a replica."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from jina_asgi import Context, Deployment, Executor, ExecutorInputError, JinaASGI, Limits, dynamic_batching, requests
from tests.doubles.rig import note


class Clip(BaseModel):
    clip: Path
    name: str = ""
    pause: float = 0.0


class Blob(BaseModel):
    blob: bytes = b""


class Read(BaseModel):
    size: int
    total: int = 0


def read(path: Path) -> Read:
    """The size of a file, and the sum of its bytes, read as models read: a bit at a time."""
    size = total = 0
    with path.open("rb") as file:
        while block := file.read(2**16):
            size, total = size + len(block), total + sum(block[:: 2**12])
    return Read(size=size, total=total)


class Reader(Executor):
    @requests(on="/read")
    def read(self, docs: list[Clip]) -> list[Read]:
        return [read(doc.clip) for doc in docs]

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=8, gather="window", timeout=5)
    def batched(self, docs: list[Clip]) -> list[Read]:
        time.sleep(max(doc.pause for doc in docs))
        return [read(doc.clip) for doc in docs]

    @requests(on="/stream")
    def stream(self, doc: Clip) -> Iterator[Read]:
        for _ in range(3):
            time.sleep(doc.pause)
            yield read(doc.clip)

    @requests(on="/fails")
    async def fails(self, doc: Clip) -> Read:
        raise ExecutorInputError(f"no such film as one of {read(doc.clip).size} bytes")

    @requests(on="/bytes")
    async def bytes(self, docs: list[Blob]) -> list[Read]:
        return [Read(size=len(doc.blob)) for doc in docs]

    @requests(on="/hold")
    def hold(self, doc: Clip, context: Context) -> Read:
        note(f"began {doc.name}")
        while not context.cancelled:
            time.sleep(0.01)
        note(f"told {doc.name}")
        return read(doc.clip)


LIMITS = Limits(body=256 * 2**20)
worker = JinaASGI(Deployment(Reader, grace=1.0), limits=LIMITS)
pool = JinaASGI(Deployment(Reader, replicas=1, grace=1.0), limits=LIMITS)
