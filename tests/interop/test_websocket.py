"""Jina's binary WebSocket: its own Client asks ours, a Deployment and a Flow, what it asks over gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import HERE, environment, running
from tests.interop.test_grpc import OF_JINAS_CLIENT, expected
from tests.serving import free_port

pytestmark = pytest.mark.processes

#: Its Client cannot stream over this protocol.
OF_ITS_WEBSOCKET = {**OF_JINAS_CLIENT, "stream": "TypeError", "no stream": "TypeError"}


@pytest.mark.parametrize("kind", ["deployment", "flow"])
def test_jinas_client_asks_ours(jina_python: Path, kind: str) -> None:
    port = free_port()
    with running(sys.executable, "grpc_serves.py", kind, str(port), "websocket"):
        command = [str(jina_python), str(HERE / "grpc_asks.py"), str(port), "websocket"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr
    told = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
    answers = expected(kind, OF_ITS_WEBSOCKET)
    del answers["in order"]  # not asked: it may wait for ever
    assert answers == told
