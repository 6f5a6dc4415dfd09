"""README.md's own programs: the app is served, and asked, as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jina_asgi.testing import client

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = {
    match[1]: match[2] for match in re.finditer(r"^```python\n# (\S+\.py)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
}

SERVE = """
import socket, subprocess, sys, uvicorn
from embedder import app

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        code = open("ask.py").read().replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        self.asked = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
        import asyncio
        async def answered():
            print(await asyncio.to_thread(lambda: self.asked.communicate()[0]))
            self.should_exit = True
        self.task = asyncio.create_task(answered())

Server(uvicorn.Config(app, port=0, log_level="warning")).run()
"""


@pytest.mark.model
@pytest.mark.processes
def test_what_is_served_is_asked_for_an_array(tmp_path: Path) -> None:
    assert PROGRAMS.keys() == {"embedder.py", "ask.py"}
    for name, code in PROGRAMS.items():
        (tmp_path / name).write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERVE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shape, *rows = done.stdout.split("\n", 1)
    assert shape == "(3, 384) float32", done.stderr
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d*", rows[0])]
    assert numbers[0] == 1
    assert numbers[1] > numbers[2], "a cat is nearer to a kitten than to the stock market"


@pytest.mark.model
async def test_what_curl_asks_is_answered() -> None:
    found: dict[str, object] = {}
    exec(PROGRAMS["embedder.py"], found)
    [(path, body)] = re.findall(r"^curl -s localhost:8000(\S+) --json '(.*)'$", README, re.MULTILINE)
    async with client(found["app"]) as http:
        answer = await http.post(path, json=json.loads(body), timeout=60)
    assert answer.status_code == 200, answer.text
    [doc] = answer.json()["data"]
    assert (doc["embedding"], doc["scale"], len(doc["buffer"])) == (None, None, 344)
