"""Batches of encoded documents, as the pool host makes them: it sends them on as they came, and decodes none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from jina_asgi.documents.codec import Codec
from jina_asgi.protocols.frames.calls import write_call
from jina_asgi.runners.admission import Admission
from jina_asgi.runners.batching.hints import BatchPlan
from jina_asgi.runners.batching.runner import BatchRunner
from jina_asgi.settings import BatchingSettings
from jina_asgi.types import Call, Result
from tests.doubles.frames import CALLED, TEXT, Double


class Undecodable(Codec):
    """The codec of a process that must decode no document."""

    def decode(self, buffers: Sequence[Any], /) -> list[Any]:
        raise AssertionError("a document was decoded")


async def test_a_batch_is_sent_on_as_it_came() -> None:
    reader, sent = Undecodable(TEXT), list[list[bytes]]()

    async def send(call: Call) -> Result:
        _, docs = write_call(call)
        sent.append([bytes(doc) for doc in docs])  # type: ignore[arg-type]  # small ones are no Parts
        return Result(reader.encoded([*call.begin().encoded]))

    batcher = BatchRunner(
        Double(send),
        {CALLED.name: BatchPlan.of(BatchingSettings(preferred_batch_size=4))},
        admission=Admission(10, 1000),
        grace=0.0,
        slots=lambda _: (1, 0),
        encoded=True,
    )
    one, other = Codec(TEXT).encode([{"text": "one"}, {"text": "other"}])
    async with batcher.lifespan():
        answers = await asyncio.gather(
            *(batcher.call(Call(CALLED.name, reader.encoded([doc]))) for doc in (one, other))
        )
    assert sent == [[one, other]]
    assert [[*answer.docs.encoded] for answer in answers] == [[one], [other]]
