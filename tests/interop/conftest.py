"""A real Jina 3.34, in an environment of its own: that of the benchmarks, made where JINA_ASGI_INTEROP says to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving import free_port

HERE = Path(__file__).parent
SETUP = HERE.parent / "benchmarks" / "setup_peers.sh"


@pytest.fixture(scope="session")
def jina_python() -> Path:
    """The interpreter of an environment that has Jina."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    root = Path(os.environ.get("JINA_ASGI_BENCH", cache / "jina-asgi-bench"))
    python = root / "jina" / "bin" / "python"
    if os.environ.get("JINA_ASGI_INTEROP"):
        subprocess.run(["bash", str(SETUP), "jina"], check=True)
    if not python.exists():
        how = "JINA_ASGI_INTEROP=1 (or `tox -e interop`) makes it, with Python 3.11 and a package index at hand"
        pytest.skip(f"NOT TESTED against a real Jina: {python} is not there; {how}")
    return python


def environment() -> dict[str, str]:
    """Ours, without our packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="session", params=["deployment", "flow"])
def jina_port(request: pytest.FixtureRequest, jina_python: Path) -> Iterator[int]:
    """The port of a real Jina that serves `jina_serves.py`, as a Deployment and as a Flow."""
    port = free_port()
    with running(jina_python, "jina_serves.py", request.param, str(port)):
        yield port


@pytest.fixture(scope="session")
def jina_asks(jina_python: Path) -> Callable[[int], str]:
    """Runs Jina's own Client against a port; gives what it prints."""

    def ask(port: int) -> str:
        command = [str(jina_python), str(HERE / "jina_asks.py"), str(port)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


@contextmanager
def running(python: str | Path, script: str, *words: str) -> Iterator[None]:
    """A program that serves until its input ends."""
    own: dict[str, Any] = {} if python == sys.executable else {"env": environment()}
    process = subprocess.Popen(
        [str(python), str(HERE / script), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        **own,
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.strip() == "serving":
                break
        else:
            raise AssertionError(f"{script} did not start: {''.join(said)}")
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # Jina's own processes too
        process.communicate()
