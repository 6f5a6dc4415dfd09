"""README.md and docs/fastapi.md, followed to the letter: files are written, tests pass, commands answer what they say."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class Page:
    """The blocks of a page: files that it has its reader write, and commands."""

    def __init__(self, path: str) -> None:
        self.path, self.text = path, (ROOT / path).read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        python = [code for kind, code in self.blocks if kind == "python"]
        self.files = {match[1]: code for code in python if (match := re.match(r"# (\S+\.py)\n", code))}
        assert len(self.files) == len(python), "every block of Python is a file"

    def commands(self, word: str) -> list[tuple[str, str]]:
        """The console commands that start with `word`, each with the answer printed below it."""
        consoles = "".join(text for kind, text in self.blocks if kind == "console")
        pairs = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", consoles, re.MULTILINE)
        return [(command, answer) for command, answer in pairs if command.startswith(word)]


PAGES = [Page("README.md"), Page("docs/fastapi.md")]
README = PAGES[0]


def matches(expected: str, actual: str) -> bool:
    """Equal but for the ends of lines and blank ones, with '...' standing for anything."""
    lines = [[line for line in text.splitlines() if line.strip()] for text in (expected, actual)]
    pattern = re.escape("\n".join(lines[0])).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, "\n".join(lines[1])) is not None


@dataclass
class Followed:
    """A page, and the folder with the files that it has its reader write."""

    page: Page
    folder: Path


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.path)
def followed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    folder = tmp_path_factory.mktemp("page")
    for name, code in request.param.files.items():
        (folder / name).write_text(code, encoding="utf-8")
    return Followed(request.param, folder)


@pytest.fixture(scope="module")
def address(followed: Followed) -> Iterator[str]:
    """Where the app answers, started by the page's own command on a free port."""
    ((command, _),) = followed.page.commands("gunicorn")
    with subprocess.Popen(
        [*shlex.split(command), "--bind", "127.0.0.1:0"],
        cwd=followed.folder,
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


def test_its_tests_of_your_app_pass(followed: Followed) -> None:
    tests = [name for name in followed.page.files if name.startswith("test_")]
    assert "app.py" in followed.page.files
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=followed.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
def test_each_command_answers_what_it_says(followed: Followed, address: str) -> None:
    commands = followed.page.commands("curl")
    assert commands
    for command, answer in commands:
        words = [word.replace("localhost:8000", address) for word in shlex.split(command)]
        done = subprocess.run(words, cwd=followed.folder, capture_output=True, text=True, check=True, timeout=60)
        assert matches(answer, done.stdout), (command, done.stdout)


def test_continuous_integration_runs_the_test_command_by_the_python_that_it_finds() -> None:
    (test,) = [text for kind, text in README.blocks if kind == "sh" and text.endswith("tox run\n")]
    python, _, rest = test.partition(" ")
    assert "python3" == python
    assert f'"$python" {rest}' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
