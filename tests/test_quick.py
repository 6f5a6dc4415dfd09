"""`--no-processes`, by which `tox run -e quick` leaves out what starts processes; and the environments that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = """
import asyncio
import os
import subprocess
import sys

import pytest

@pytest.fixture
def started():
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.mark.processes
def test_marked(started): pass

def test_by_a_fixture(started): pass

def test_by_asyncio():
    async def start():
        await (await asyncio.create_subprocess_exec(sys.executable, "-c", "")).wait()
    asyncio.run(start())

def test_by_fork():
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)

def test_none(): pass
"""


@pytest.mark.processes
def test_a_test_that_starts_a_process_is_left_out_by_its_marker_and_fails_without(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = processes: starts some\n")
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "-q",
        "-rA",
        "--no-processes",
    ]
    output = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    outcomes = {
        name: outcome for outcome, name in re.findall(r"^(PASSED|FAILED) test_some.py::(\w+)", output, re.MULTILINE)
    }
    failed = dict.fromkeys(["test_by_a_fixture", "test_by_asyncio", "test_by_fork"], "FAILED")
    assert outcomes == {**failed, "test_none": "PASSED"}, output
    assert output.count("lacks the marker `processes`") >= 3


def expanded(name: str) -> list[str]:
    """The names of a section of tox.ini: "py3{11,12}" has two."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(chosen) for chosen in product(*parts)]


def test_contributing_has_every_environment() -> None:
    sections = re.findall(r"^\[testenv:(.+)\]$", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall("`(.*?)`", row)}
    assert named <= {name for section in sections for name in expanded(section)}
    assert [s for s in sections if s != "demo" and named.isdisjoint(expanded(s))] == []
