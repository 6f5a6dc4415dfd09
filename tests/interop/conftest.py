"""A real Jina 3.34, in an environment of its own, which is made where it is missing: that of the benchmarks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OURS = Path(sys.executable)
SETUP = HERE.parent / "benchmarks" / "setup_peers.sh"
ROOT = Path(
    os.environ.get("JINA_ASGI_BENCH")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jina-asgi-bench"
)
_PATIENCE = 900.0  # seconds: a quarter of a gigabyte, from an index


def made(name: str) -> Path:
    """The interpreter of an environment, made by whoever asks first; others wait. Skips where it cannot be made."""
    try:
        ROOT.mkdir(parents=True, exist_ok=True)
        with (ROOT / "making.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run(["bash", str(SETUP), name], capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except subprocess.CalledProcessError as error:
        why = "\n".join(error.stderr.strip().splitlines()[-5:])
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    else:
        return ROOT / name / "bin" / "python"
    pytest.skip(f"NOT TESTED against a real Jina: its environment {ROOT / name} cannot be made:\n{why}")


@pytest.fixture(scope="session")
def jina_python() -> Path:
    """The interpreter of an environment that has Jina."""
    return made("jina")


@pytest.fixture(scope="session")
def old_jina_python() -> Path:
    """The same with the documents that Jina had before docarray 0.30."""
    return made("jina-docarray021")


@pytest.fixture(scope="session")
def run(jina_python: Path) -> Callable[..., str]:
    """Runs a program of this folder to its end, in an environment of Jina's or in ours; gives what it prints."""

    def ran(script: str, *words: str, python: Path = jina_python) -> str:
        command = [str(python), str(HERE / script), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, env=environment(python)
            )
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{script} did not end; its last words: {(error.stdout or b'')[-500:]!r}") from error
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ran


def environment(python: Path) -> dict[str, str] | None:
    """The variables of a program: those here, but for another interpreter without our packages."""
    if python == OURS:
        return None
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


@contextmanager
def running(python: Path, script: str, *words: str) -> Iterator[None]:
    """A program that serves until its input ends."""
    process = subprocess.Popen(
        [str(python), str(HERE / script), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=environment(python),
    )
    assert process.stdout is not None
    reader = threading.Thread(target=process.stdout.read)  # Jina logs there, and waits for whoever reads
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.strip() == "serving":
                break
        else:
            raise AssertionError(f"{script} did not start: {''.join(said)}")
        reader.start()
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # Jina's own processes too
        if reader.ident is not None:
            reader.join()
        process.communicate()
