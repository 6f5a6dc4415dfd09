"""What a client is told where an Executor fails to load: no more than the class of the error, and the id that the log has."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, JinaASGI, ReplicaPool, requests
from jina_asgi.testing import client

SECRET = "password=hunter2 in /srv/models"


class Text(BaseModel):
    text: str


class Failing(Executor):
    """Fails to load, always or in the first replica alone."""

    def __init__(self, only: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not only or not Path(only).exists():
            if only:
                Path(only).touch()
            raise LookupError(SECRET)

    @requests(on="/echo")
    async def echo(self, docs: list[Text]) -> list[Text]:
        return docs


async def test_readiness_and_status_name_the_class_of_what_init_raised_and_its_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "jina_asgi")
    async with client(JinaASGI(Deployment(Failing))) as http:
        async with asyncio.timeout(20.0):
            while "LookupError" not in (ready := await http.get("/-/ready")).text:
                await asyncio.sleep(0.01)  # told by a thread: there is no event to wait on
        told = [ready.text] + [(await http.get(path)).text for path in ("/-/status", "/dry_run", "/status")]
        refused = await http.post("/echo", json={"data": [{"text": "x"}]})
    assert not [text for text in (*told, refused.text) if "hunter2" in text]
    identity = ready.json()["detail"].rpartition(" ")[2]
    assert [SECRET] == [str(r.exc_info[1]) for r in caplog.records if identity in r.getMessage() and r.exc_info]


@pytest.mark.processes
async def test_status_names_the_class_of_what_a_replica_raised_and_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "jina_asgi")
    pool = ReplicaPool(Failing, replicas=2, uses_with={"only": str(tmp_path / "first")})
    failure = None
    async with client(JinaASGI(pool)) as http, asyncio.timeout(30.0):
        while failure is None:
            status = await http.get("/-/status")
            assert "hunter2" not in status.text
            seats = status.json()["deployments"][pool.name].get("replicas", {}).values()
            failure = next((seat["failure"] for seat in seats if seat["failure"]), None)
            await asyncio.sleep(0.01)  # told by another process
    assert "LookupError" == failure["type"]
    assert [record for record in caplog.records if failure["id"] in record.getMessage()]
