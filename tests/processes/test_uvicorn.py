"""uvicorn by itself: `--reload` while streams are open, and its end where no lifespan reaches the application."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.doubles.files import replace_text
from tests.doubles.rig import ROOT, Journal, Served

pytestmark = pytest.mark.processes

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from jina_asgi import mount
from tests.doubles.apps import LIMITS, Model

async def version(request):
    return PlainTextResponse("VERSION")

app = Starlette(routes=[Route("/version", version)])
mount(app, "/lm", Model, limits=LIMITS)
"""


def test_with_reload_open_streams_do_not_hold_up_code_that_changed(tmp_path: Path, journal: Journal) -> None:
    module = tmp_path / "changing.py"
    module.write_text(APP.replace("VERSION", "old"))
    env = {**journal.env, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with (
        Served("uvicorn", "changing:app", "--reload", "--reload-dir", str(tmp_path), env=env) as server,
        server.client() as http,
    ):
        assert "old" == until(http, "old")
        open_, heard = threading.Event(), list[str]()
        reader = threading.Thread(target=read_on, args=(server.url, open_, heard))
        reader.start()
        assert open_.wait(10.0)
        replace_text(module, APP.replace("VERSION", "new"))
        assert "new" == until(http, "new")
        reader.join(10.0)
        assert not reader.is_alive()
        assert "event: error" in heard
        assert '"type":"ReplicaDied"' in heard[heard.index("event: error") + 1]
        assert ["loading", "loaded", "closed reader", "unloaded"] == [
            note for note in journal.so_far() if note in ("loading", "loaded", "closed reader", "unloaded")
        ][:4]


def read_on(url: str, open_: threading.Event, heard: list[str]) -> None:
    """Read a stream that does not end by itself, to its end."""
    body = {"data": {"name": "reader", "pause": 0.05}}
    with httpx.stream("POST", f"{url}/lm/stream", json=body, timeout=30.0) as answer:
        for line in answer.iter_lines():
            heard.append(line)
            open_.set()


def until(http: httpx.Client, version: str) -> str:
    """What the app's own route says once that is `version`, or after a while."""
    end = time.monotonic() + 20.0
    while True:
        try:
            found = http.get("/version").text
        except httpx.TransportError:
            found = ""
        if found == version or time.monotonic() > end:
            return found


@pytest.mark.parametrize("options", [(), ("--lifespan", "off")], ids=["a mount within a host", "no lifespan"])
def test_what_no_lifespan_reached_finishes_its_calls_at_the_end_and_is_closed(
    journal: Journal, options: tuple[str, ...]
) -> None:
    with Served("uvicorn", "tests.doubles.apps:plain", *options, env=journal.env) as server, server.client() as http:
        answered: list[int] = []
        slow = {"data": [{"name": "slow", "pause": 1.0}]}
        asker = threading.Thread(target=lambda: answered.append(http.post("/lm/slow", json=slow).status_code))
        asker.start()
        journal.until("began slow")
        server.signal(signal.SIGTERM)
        server.ended(within=10.0)
        asker.join()
    assert [200] == answered
    assert ["loading", "loaded", "began slow", "unloaded"] == journal.so_far()
