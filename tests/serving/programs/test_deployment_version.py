"""Code that changed, and HUP: the version before answers until the new one works, and on where it never does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, requests
from tests.doubles.files import replace_text
from tests.doubles.pool_watch import Hammer, Pooled, fresh
from tests.doubles.rig import ROOT, Journal, Served

pytestmark = pytest.mark.processes

MODEL = (ROOT / "tests/doubles/pooled_model.py").read_text()


class Reloaded(Pooled):
    """The application `pooled` with a model whose code is the test's to change."""

    def __init__(self, server: Served, model: Path) -> None:
        super().__init__(server)
        self._model = model

    def change(self, code: str) -> None:
        """Write other code, and tell the server to reload."""
        replace_text(self._model, code)
        self.server.signal(signal.SIGHUP)


@pytest.fixture
def pool(tmp_path: Path, journal: Journal) -> Iterator[Reloaded]:
    model = tmp_path / "changing_model.py"
    model.write_text(MODEL)
    app = (ROOT / "tests/doubles/pooled.py").read_text().replace("tests.doubles.pooled_model", model.stem)
    (tmp_path / "changing_app.py").write_text(app)
    env = {**journal.env, "PYTHONPATH": f"{tmp_path}:{ROOT}", "POOLED_REPLICAS": "1"}
    with Served("gunicorn-uvicorn", "changing_app:app", "--workers", "2", env=env) as server:
        pool = Reloaded(server, model)
        with fresh(server) as http:
            pool.until(lambda: http.get("/lm/-/ready").status_code == 200)
        yield pool


def test_the_version_before_answers_while_the_new_one_loads(pool: Reloaded, journal: Journal) -> None:
    old, workers = pool.run()["pid"], pool.workers
    with Hammer(pool, 2) as hammer:
        pool.change(MODEL + "\ntime.sleep(4)\n")
        pool.until(lambda: len(pool.replicas) == 2 and not set(workers) & set(pool.workers))
        hammer.more(20)  # by new workers
        assert {pool.run()["pid"] for _ in range(6)} == {old}
        pool.until(lambda: old not in pool.replicas)
        hammer.more(20)
        assert old not in {pool.run()["pid"] for _ in range(6)}
    assert not hammer.failed


def test_a_stream_goes_on_while_its_worker_turns_to_the_new_version(pool: Reloaded, journal: Journal) -> None:
    pool.change(MODEL + "\ntime.sleep(2)\n")
    pool.until(lambda: len(pool.replicas) == 2)
    old = pool.run()["pid"]
    with fresh(pool.server) as http, http.stream("POST", "/lm/stream", json={"data": {"pause": 0.01}}) as events:
        lines = (line for line in events.iter_lines() if "data" in line)
        next(lines)
        pool.until(lambda: pool.run()["pid"] != old)
        assert f'"pid":{old}' in next(lines).replace(" ", "")


def test_broken_code_leaves_the_version_before_in_place(pool: Reloaded) -> None:
    old, workers = pool.run()["pid"], pool.workers
    with Hammer(pool, 2) as hammer:
        pool.change(MODEL + "\nraise RuntimeError('broken on purpose')\n")
        pool.until(lambda: not set(workers) & set(pool.workers))
        pool.server.logged("cannot be loaded again; the previous version goes on answering")
        hammer.more(40)
        assert {pool.run()["pid"] for _ in range(6)} == {old}
        pool.change(MODEL + "\n# mended\n")
        pool.until(lambda: old not in pool.replicas)
        hammer.more(20)
    assert not hammer.failed


def test_a_new_endpoint_is_served_once_its_version_works(pool: Reloaded) -> None:
    added = """
    @requests(on="/added")
    def added(self, docs: DocList[Job]) -> DocList[Job]:
        return docs
"""
    pool.change(MODEL.replace("import asyncio", "import asyncio, time\n\ntime.sleep(2)\n") + added)
    with fresh(pool.server) as http:
        pool.until(lambda: http.post("/lm/added", json={"data": [{"name": "x"}]}).status_code == 200)
        assert "/added" in http.get("/lm/openapi.json").json()["paths"]


class Mark(BaseModel):
    text: str


class Marked(Executor):
    """Says which one it is."""

    def __init__(self, mark: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mark = mark

    @requests(on="/mark")
    def marked(self, docs: list[Mark]) -> list[Mark]:
        return [Mark(text=self.mark) for _ in docs]


async def test_a_deployment_is_never_taken_for_another_of_its_name() -> None:
    uses = f"{__name__}.Marked"
    async with Deployment(uses, replicas=1, uses_with={"mark": "one"}) as one:
        async with Deployment(uses, replicas=1, uses_with={"mark": "two"}) as two:
            answers = [(await each.call("/mark", {"text": ""}))[0]["text"] for each in (one, two, one)]
    assert ["one", "two", "one"] == answers
