"""Jina's Client with the documents of docarray 0.21, whose protobuf is another one: refused, by a real Jina and by ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.uvicorn_server import free_port
from tests.interop.conftest import OURS, running

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("server", ["jina", "ours"])
def test_old_documents_are_refused(
    old_jina_python: Path, jina_python: Path, run: Callable[..., str], server: str
) -> None:
    """GR-01: in a real Jina the call breaks where it reads the request; ours says in its answer what is wrong, and goes on."""
    port = free_port()
    with running(OURS if server == "ours" else jina_python, "serves.py", "deployment", f"grpc={port}"):
        lines = run("old.py", str(port), python=old_jina_python).splitlines()
    told = dict(json.loads(line) for line in lines if line.startswith('["'))
    error, message = told.pop("upper")
    assert {"ready": True, "nothing": None} == told
    if server == "ours":
        assert "BadServer" == error
        assert "the docs are not protobuf" in message
    else:
        assert "BadServerFlow" == error
        assert "DecodeError" in message
