"""How an Executor is made: alone, whatever else of the process is being loaded."""

from __future__ import annotations

import threading
from typing import Any

from pydantic import BaseModel

from jina_asgi import Executor, Flow, requests


class Text(BaseModel):
    text: str


async def test_executors_of_one_process_are_made_one_after_another() -> None:
    """Libraries that read models change globals while they do: with two at once a dtype came out wrong."""
    both, met = threading.Barrier(2), []

    class Heavy(Executor):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            try:
                both.wait(0.3)
            except threading.BrokenBarrierError:  # nobody else came
                return
            met.append(self)

        @requests
        def same(self, docs: list[Text]) -> list[Text]:
            return docs

    async with Flow().add(uses=Heavy).add(uses=Heavy) as flow:
        assert await flow.call("/", [Text(text="a")]) == [Text(text="a")]
    assert met == []
