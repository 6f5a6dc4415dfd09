"""What the life of a Runner leaves behind is freed as it ends, however it ends: it may hold a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from jina_asgi import Deployment, Executor, Flow, requests
from jina_asgi.types import Runner
from tests.doubles.reference_cycles import check_no_cycle_after, end_dropped_applications


class Good(Executor):
    @requests(on="/echo")
    async def echo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs


class FailsToLoad(Good):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        raise ValueError("no such weights")


class FailsToClose(Good):
    def close(self) -> None:
        raise ValueError("the disk is full")


class Ill(Good):
    def health(self) -> bool:
        raise ValueError("no pulse")


EXECUTORS = [Good, FailsToLoad, FailsToClose, Ill]
PLACES: dict[str, Callable[[type[Executor]], Runner]] = {
    "by itself": lambda cls: Deployment(cls).runner,
    "in a Flow": lambda cls: Flow().add(uses=Good).add(uses=cls).runner,
    "in shards": lambda cls: Deployment(cls, shards=2).runner,
}


async def ended(make: Callable[[], Runner]) -> None:
    with suppress(ValueError):
        async with make().lifespan():
            pass


async def cancelled(make: Callable[[], Runner]) -> None:
    inside = asyncio.Event()

    async def live() -> None:
        async with make().lifespan():
            inside.set()
            await asyncio.Event().wait()

    living = asyncio.create_task(live())
    beginning = asyncio.create_task(inside.wait())
    await asyncio.wait([living, beginning], return_when=asyncio.FIRST_COMPLETED)
    beginning.cancel()
    living.cancel()
    await asyncio.wait([living])
    if not living.cancelled():
        living.exception()
    del living  # its error's traceback holds this frame


@pytest.fixture(autouse=True)
def _nothing_else_ends_meanwhile() -> None:
    end_dropped_applications()


@pytest.mark.parametrize("way", [ended, cancelled])
@pytest.mark.parametrize("uses", EXECUTORS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_life_leaves_nothing_to_the_garbage_collector(place: str, uses: type[Executor], way: Any) -> None:
    await check_no_cycle_after(partial(way, partial(PLACES[place], uses)))
