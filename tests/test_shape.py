"""The suite guards the shape: who may import whom, what is public, and that importing changes nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import jina_asgi
from jina_asgi import errors
from tests.house.source import House

ROOT = Path(jina_asgi.__file__).parent
CHECKOUT = Path(__file__).parent.parent
MAP = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
FILES = sorted(path for path in ROOT.rglob("*.py") if "contrib" not in path.relative_to(ROOT).parts)
PURE = {path for path in FILES if path.name.startswith("_") and not path.name.startswith("__")}
IMPURE = {"asyncio", "logging", "os", "random", "socket", "subprocess", "threading", "time", "uuid"}


def module_of(path: Path) -> str:
    parts = ("jina_asgi", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """Every module that a file names in an import, deferred ones too; of this package, the modules themselves."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            below = {f"{name}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= below or {name}
    return found


def test_imports_are_absolute() -> None:
    assert not [path for path in FILES for name in imports_of(path) if name.startswith(".")]


GRAPH = {module: imports_of(path) & set(MODULES) for module, path in MODULES.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_runners_and_protocols_never_import_each_other(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    other = {"runners": "jina_asgi.protocols", "protocols": "jina_asgi.runners"}.get(folder)
    assert not [name for name in imports_of(path) if other and name.startswith(other)]


def test_imports_go_downhill_without_cycles() -> None:
    levels: dict[str, int] = {}

    def level(module: str, above: tuple[str, ...]) -> int:
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in levels:
            levels[module] = 1 + max((level(below, (*above, module)) for below in GRAPH[module]), default=0)
        return levels[module]

    for module in GRAPH:
        level(module, ())
    assert levels["jina_asgi.errors"] == 1


#: From low to high: imports between folders go down, or stay within a row, and never round.
LAYERS = [
    {"errors", "excepts", "types"},
    {"concurrency", "documents", "observability", "settings"},
    {"executors"},
    {"runners", "protocols"},
    {"serving.config", "clients", "processes"},
    {"serving"},
    {"serving.programs", "fastapi", "starlette", "gunicorn", "cli", "compat", "testing", "__init__", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def room_of(module: str) -> str:
    """The room of a module in the picture of the layers: the longest one that has it."""
    parts = module.split(".")[1:] or ["__init__"]
    return next(room for end in range(len(parts), 0, -1) if (room := ".".join(parts[:end])) in LEVEL)


def folder_of(module: str) -> str:
    """Where a module lies; a module at the top stands for itself."""
    folder = MODULES[module].relative_to(ROOT).parent.as_posix()
    return module if folder == "." else folder


def test_the_map_for_contributors_has_these_layers() -> None:
    rows: dict[str, int] = {}
    for level, names in re.findall(r"^\| (\d) \| ([^|]*) \|", MAP, re.MULTILINE):
        rows |= {
            name.removesuffix(".py").strip("/").replace("/", "."): int(level) for name in re.findall("`(.*?)`", names)
        }
    assert rows == {room: level + 1 for room, level in LEVEL.items()}


def test_the_files_and_folders_of_the_map_are_there() -> None:
    named = re.findall(r"`((?:[\w.]+/)*\w+\.(?:py|md|yml|txt)|(?:[\w.]+/)+)`", MAP)
    in_contrib = {"config.yml", "requirements.txt", "README.md", "tests/", "_name.py"}  # of any contrib, or any name
    missing = [n for n in named if not (CHECKOUT / n).exists() and not (ROOT / n).exists()]
    assert [name for name in missing if name not in in_contrib] == []
    assert len(named) > 50


def test_the_reading_path_is_read_in_an_afternoon() -> None:
    house = House(CHECKOUT)
    path = house.reading_path
    assert path is not None
    assert 0 < len(path) <= 12
    assert house.lines_of(path) <= 3500


def test_the_life_of_a_request_has_at_most_nine_steps_and_each_names_its_files() -> None:
    _, _, life = MAP.partition("\n## The life of a request\n")
    steps = re.split(r"^\d+\. ", life.partition("\n\nOther requests")[0], flags=re.MULTILINE)[1:]
    assert 0 < len(steps) <= 9
    assert [step for step in steps if not re.search(r"`\w+/[\w/]+\.py`", step)] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_folders_import_downhill(module: str) -> None:
    level = LEVEL[room_of(module)]
    assert not [below for below in GRAPH[module] if LEVEL[room_of(below)] > level]


def test_folders_import_each_other_without_circles() -> None:
    folders: dict[str, set[str]] = {}
    for module, below in GRAPH.items():
        folder = folder_of(module)
        folders.setdefault(folder, set()).update({folder_of(one) for one in below} - {folder})
    TopologicalSorter(folders).prepare()  # which raises CycleError, with the circle


def test_the_top_of_the_package_is_read_at_a_glance() -> None:
    """At most 21 files and folders, besides `py.typed` and the link to contrib."""
    assert len({path.relative_to(ROOT).parts[0] for path in FILES}) <= 21


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_each_folder_says_what_lives_there(folder: Path) -> None:
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert said.split("\n\n")[0].rstrip().endswith((".", ":")), said


def test_no_file_is_over_350_lines() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > 350}


def test_one_module_knows_docarray() -> None:
    users = {module for module, path in MODULES.items() if any(n.startswith("docarray") for n in imports_of(path))}
    assert users == {"jina_asgi.documents.document_types", "jina_asgi.testing.executors"}


def test_torch_is_imported_nowhere() -> None:
    assert not [m for m, path in MODULES.items() if any(n.split(".")[0] == "torch" for n in imports_of(path))]


@pytest.mark.parametrize("path", sorted(PURE), ids=lambda path: path.name)
def test_pure_modules_import_nothing_that_does_input_or_output(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports_of(path)} & IMPURE


def test_every_task_begins_where_its_end_is_dealt_with() -> None:
    """A task that is cancelled before its first step runs none of its coroutine; `tasks` deals with that for all."""
    makers = {"create_task", "ensure_future", "TaskGroup"}
    found = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in makers
    }
    assert found == {
        "jina_asgi.concurrency.tasks",
        "jina_asgi.testing.conformance",
        "jina_asgi.testing.calling",
        "jina_asgi.testing.crossing",
    }


def test_contrib_uses_public_names_only() -> None:
    for path in (ROOT / "contrib").rglob("*.py"):
        names = {name for name in imports_of(path) if name.startswith("jina_asgi")}
        private = {
            n for n in names if not n.startswith(("jina_asgi.contrib", "jina_asgi.testing")) and n != "jina_asgi"
        }
        assert not private, f"{path}: {private}"


def test_the_public_names_are_sorted_and_there() -> None:
    assert jina_asgi.__all__ == sorted(jina_asgi.__all__)
    assert all(hasattr(jina_asgi, name) for name in jina_asgi.__all__)


def test_every_error_is_public_and_has_a_status_and_a_code() -> None:
    base = errors.JinaASGIError
    tree = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, base)]
    drawn = errors.__doc__ or ""
    for error in tree:
        assert 400 <= error.status < 600, error
        assert error.grpc_code.isupper(), error
        assert error.__name__ in drawn, f"{error.__name__} is missing in the picture"
        assert error.__name__ == "ProtocolError" or error.__name__ in jina_asgi.__all__


LOOK = """
import asyncio, concurrent.futures, json, logging, signal, sys, time, warnings
import docarray, starlette.applications, multiprocessing
def state():
    return [
        {str(s): str(signal.getsignal(s)) for s in signal.valid_signals()},
        sorted(logging.root.manager.loggerDict), len(logging.root.handlers), str(warnings.filters),
        multiprocessing.get_start_method(allow_none=True), sys.excepthook is sys.__excepthook__,
    ]
had = set(sys.modules)  # docarray imports torch where it is installed
before, start = state(), time.process_time()
import jina_asgi
took, after = time.process_time() - start, state()
after[1] = [name for name in after[1] if name not in before[1] and not name.startswith("jina_asgi")]
before[1] = []
print(json.dumps({"took": took, "same": before == after, "before": before, "after": after,
                  "modules": [m for m in ("httpx", "yaml", "sse_starlette", "uvicorn", "torch", "fastapi", "grpc")
                              if m in sys.modules and m not in had]}))
"""


@pytest.mark.processes
def test_importing_is_quick_and_changes_nothing(tmp_path: Path) -> None:
    """At most 0.3 s of processor time beyond docarray and Starlette, compiled; the best of three, for the machine's sake."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env = {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    program = [sys.executable, "-W", "ignore", "-c", LOOK]
    looks = [
        json.loads(subprocess.run(program, capture_output=True, check=True, env=env).stdout)
        for _ in range(4)  # the first compiles
    ]
    assert looks[0]["modules"] == []
    assert looks[0]["same"], (looks[0]["before"], looks[0]["after"])
    assert min(look["took"] for look in looks) < 0.3
