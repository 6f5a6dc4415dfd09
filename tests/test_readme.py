"""README.md, followed to the letter: its files are written, its tests pass, its commands answer what it says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
FILES = {match[1]: code for kind, code in BLOCKS if kind == "python" and (match := re.match(r"# (\S+\.py)\n", code))}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def commands(word: str) -> list[tuple[str, str]]:
    """The console commands that start with `word`, each with the answer printed below it."""
    consoles = "".join(text for kind, text in BLOCKS if kind == "console")
    pairs = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", consoles, re.MULTILINE)
    return [(command, answer) for command, answer in pairs if command.startswith(word)]


def matches(expected: str, actual: str) -> bool:
    """Equal but for the ends of lines and blank ones, with '...' standing for anything."""
    lines = [[line for line in text.splitlines() if line.strip()] for text in (expected, actual)]
    pattern = re.escape("\n".join(lines[0])).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, "\n".join(lines[1])) is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README tells its reader to write."""
    folder = tmp_path_factory.mktemp("readme")
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the app answers, started by the README's own command on a free port."""
    ((command, _),) = commands("gunicorn")
    with subprocess.Popen(
        [*shlex.split(command), "--bind", "127.0.0.1:0"],
        cwd=folder,
        env={**os.environ, "PATH": PATH},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        log = ""
        try:
            for line in server.stderr:
                log += line
                if found := re.search(r"Listening at: http://(\S+)", line):
                    yield found[1]
                    break
            else:
                pytest.fail(log)
        finally:
            server.terminate()
            server.stderr.close()


def test_every_python_block_is_a_file() -> None:
    assert len(FILES) == sum(kind == "python" for kind, _ in BLOCKS)
    assert {"app.py", "test_app.py"} <= FILES.keys()


def test_its_tests_of_your_app_pass(folder: Path) -> None:
    tests = [name for name in FILES if name.startswith("test_")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
@pytest.mark.parametrize(("command", "answer"), commands("curl"))
def test_each_command_answers_what_it_says(command: str, answer: str, folder: Path, address: str) -> None:
    words = [word.replace("localhost:8000", address) for word in shlex.split(command)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    assert matches(answer, done.stdout), done.stdout


def test_continuous_integration_runs_the_test_command_as_it_stands() -> None:
    (test,) = [text for kind, text in BLOCKS if kind == "sh" and text.endswith("tox run\n")]
    assert test in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
