"""What an Executor's own `health` says decides whether its replica is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import Executor, NotReady, ReplicaPool, requests
from tests.doubles.files import replace_text
from tests.doubles.replica_watch import seats

pytestmark = pytest.mark.processes


class Text(BaseModel):
    text: str


RAISED = {"raises": RuntimeError("no pulse"), "interrupts": KeyboardInterrupt("no pulse"), "exits": SystemExit(3)}


class Patient(Executor):
    """As healthy as the file that it is told of says."""

    def __init__(self, file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file = Path(file)

    def health(self) -> bool:
        said = self.file.read_text()
        if said == "hangs":
            time.sleep(60)  # the hang itself
        if said in RAISED:
            raise RAISED[said]
        return said == "well"

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20.0):
        while not await condition():
            await asyncio.sleep(0.02)  # told by another process: there is no event to wait on


@pytest.mark.parametrize(
    ("said", "told"), [("ill", "not healthy"), *((how, "failed") for how in RAISED), ("hangs", "longer than 1 s")]
)
async def test_a_replica_that_is_not_healthy_is_not_asked(tmp_path: Path, said: str, told: str) -> None:
    file = tmp_path / "health"
    file.write_text("well")
    refusals: list[str] = []

    # A heartbeat of two seconds: on a busy machine a shorter one has a replica killed that is only slow.
    async with ReplicaPool(Patient, uses_with={"file": str(file)}, heartbeat=2.0) as pool:

        async def answers() -> bool:
            try:
                return bool(await pool.call("/echo", [Text(text="a")]))
            except NotReady as error:
                refusals.append(str(error))
                return False

        async def refuses() -> bool:
            return not await answers()

        assert await answers()
        replace_text(file, said)
        await until(refuses)
        assert all(told in refusal for refusal in refusals)
        assert told in pool.runner.unhealthy_reason()
        if said != "hangs":  # that thread is gone for good
            replace_text(file, "well")
            await until(answers)
            assert not pool.runner.unhealthy_reason()
            assert 0 == seats(pool)[0]["restarts"]
