"""Counts the files and functions of the package that run for one warm call, in all processes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WALKS = {
    "http": "an echo over HTTP",
    "batching": "the same with batching",
    "pool": "the same through the pool (all processes)",
    "grpc": "an echo over gRPC",
    "flow": "a Flow of two",
}
ON_PATH = Path(__file__).parent / "on_path"
CALLS = 5


@contextmanager
def watched(tree: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for what runs, and the environment of a program with the tree's package whose calls are written there."""
    with tempfile.TemporaryDirectory() as folder:
        calls, runtime = Path(folder, "calls"), Path(folder, "runtime")
        calls.mkdir()
        runtime.mkdir(0o700)
        variables = {
            "HOUSE_CALLS": str(calls),
            "HOUSE_PACKAGE": str(tree.resolve() / "jina_asgi"),
            "PYTHONPATH": os.pathsep.join([str(ON_PATH), str(tree.resolve())]),
            "PYTHONWARNINGS": "ignore",
            "XDG_RUNTIME_DIR": str(runtime),  # a pool of its own
        }
        unset = ("JINA_ASGI_POOL", "COVERAGE_PROCESS_CONFIG")
        yield calls, {name: value for name, value in os.environ.items() if name not in unset} | variables


def functions_of(tree: Path, walk: str) -> set[tuple[str, str]]:
    """The (file, function) pairs that ran in each of several warm calls: what ran in one of them only was no part of it."""
    with watched(tree) as (calls, environment):
        program = [sys.executable, "-P", str(ON_PATH / "house_calls.py"), walk, str(CALLS)]
        done = subprocess.run(program, env=environment, cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
        windows = [(began, ended) for began, ended in json.loads(done.stdout)]
        ran: list[set[tuple[str, str]]] = [set() for _ in windows]
        for file in calls.iterdir():
            for line in file.read_text(encoding="utf-8").splitlines():
                moment, path, function = line.split(" ", 2)
                for functions, (began, ended) in zip(ran, windows, strict=True):
                    if began <= int(moment) <= ended:
                        functions.add((path, function))
    return set.intersection(*ran)
