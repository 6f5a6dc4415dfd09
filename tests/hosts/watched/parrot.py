"""In place of examples/hosts/parrot.py: an Executor that tells the test's journal what becomes of its work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel

from jina_asgi import Executor, requests
from tests.doubles.rig import note


class Text(BaseModel):
    text: str
    pid: int = 0


class Parrot(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.life = f"{os.getpid()}-{id(self)}"
        note(f"loaded {self.life}")

    def close(self) -> None:
        note(f"unloaded {self.life}")

    @requests(on="/shout")
    def shout(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text.upper(), pid=os.getpid()) for doc in docs]

    @requests(on="/repeat")
    async def repeat(self, doc: Text) -> AsyncIterator[Text]:
        for word in doc.text.split():
            yield Text(text=word)

    @requests(on="/forever")
    async def forever(self, doc: Text) -> AsyncIterator[Text]:
        try:
            while True:
                yield doc
                await asyncio.sleep(0.01)
        finally:
            note(f"closed {doc.text}")

    @requests(on="/wait")
    async def wait(self, docs: list[Text]) -> list[Text]:
        note(f"began {docs[0].text}")
        try:
            await asyncio.Event().wait()
        finally:
            note(f"cancelled {docs[0].text}")
        return docs
