"""What type checkers say of a user's program: nothing where it is right, each line where it is wrong."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_overloads

import pytest

import jina_asgi
from jina_asgi import fastapi, testing
from jina_asgi.clients.asynchronous import AsyncClient
from jina_asgi.clients.sync import SyncClient
from tests.settings import option_pages
from tests.settings.option_types import FILE, written

FILES = Path(__file__).parent / "typing_files"
NAMES = ["right.py", "wrong.py"]


def lines_by_mypy(folder: Path) -> dict[str, set[int]]:
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\nplugins = pydantic.mypy\n")
    said = run(["mypy", "--output", "json", *NAMES], folder)
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {name: {one["line"] for one in found if one["file"] == name} for name in NAMES}


def lines_by_pyright(folder: Path) -> dict[str, set[int]]:
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": NAMES}))
    said = json.loads(run(["pyright", "--outputjson", "--pythonpath", sys.executable], folder))
    found = [one for one in said["generalDiagnostics"] if one["severity"] == "error"]
    return {
        name: {one["range"]["start"]["line"] + 1 for one in found if Path(one["file"]).name == name} for name in NAMES
    }


def run(command: list[str], folder: Path) -> str:
    """What a checker prints; pyright takes node from PyPI, and itself from npm's registry at its first run."""
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(  # noqa: PLW1510  # 1: it found something
        [sys.executable, "-m", *command], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.processes
@pytest.mark.parametrize("lines", [lines_by_mypy, lines_by_pyright])
def test_a_right_program_passes_and_each_mistake_is_named(
    lines: Callable[[Path], dict[str, set[int]]], tmp_path: Path
) -> None:
    for name in NAMES:
        shutil.copy(FILES / name, tmp_path)
    wrong = (FILES / "wrong.py").read_text().splitlines()
    marked = {number for number, line in enumerate(wrong, 1) if line.endswith("# wrong")}
    assert {"right.py": set(), "wrong.py": marked} == lines(tmp_path)


#: What a user's class takes, httpx's options, and what always raises.
TAKES_ANYTHING = {"Executor.__init__", "client", "Executor.from_hub"}


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions, and the methods of public classes."""
    classes: list[type] = [SyncClient, AsyncClient]
    for module in (jina_asgi, fastapi, testing):
        for name in module.__all__:
            found = getattr(module, name)
            if isinstance(found, type):
                classes.append(found)
            elif inspect.isfunction(function := inspect.unwrap(found)):
                yield name, function
    for cls in classes:
        for name in ("__init__", *(name for name in dir(cls) if not name.startswith("_"))):
            method = inspect.getattr_static(cls, name)
            method = getattr(method, "__func__", method)  # of a class method
            if inspect.isfunction(method):
                yield f"{cls.__name__}.{name}", inspect.unwrap(method)


def test_type_checkers_know_the_options_of_everything_public() -> None:
    anything = {
        name
        for name, function in public()
        for overload in get_overloads(function) or [function]
        for one in inspect.signature(overload).parameters.values()
        if one.kind is one.VAR_KEYWORD and not str(one.annotation).startswith("Unpack[")
    }
    assert anything == TAKES_ANYTHING


def test_the_page_of_options_is_that_of_the_settings() -> None:
    assert option_pages.written() == option_pages.FILE.read_text(encoding="utf-8"), (
        "run `python -m tests.settings.option_pages`"
    )


def test_the_types_of_options_are_those_of_the_settings() -> None:
    assert written() == FILE.read_text(), "run `python -m tests.settings.option_types`"
