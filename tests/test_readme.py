"""README.md and the pages of docs/, followed to the letter: files are written, tests pass, commands print what is below them."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.doubles.uvicorn_server import free_port

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
PATIENCE = 60.0  # seconds in which a server must listen


class Page:
    """The blocks of a page: files that it has its reader write, and commands."""

    def __init__(self, path: str) -> None:
        self.path, self.text = path, (ROOT / path).read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        code = [text for kind, text in self.blocks if kind in ("python", "yaml")]
        self.files = {match[1]: text for text in code if (match := re.match(r"# (\S+\.(?:py|yml))", text))}
        assert len(self.files) == len(code), "every block of Python and YAML is a file"
        consoles = "".join(text for kind, text in self.blocks if kind == "console")
        commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", consoles, re.MULTILINE)
        self.servers = [command for command, _ in commands if command.startswith("gunicorn ")]
        self.commands = [pair for pair in commands if pair[0] not in self.servers]


README = Page("README.md")
PAGES = [
    README,
    *(
        Page(f"docs/{name}.md")
        for name in ("client", "fastapi", "grpc", "http", "pool", "production", "websocket", "yaml")
    ),
]


def matches(expected: str, actual: str) -> bool:
    """Equal but for the ends of lines and blank ones, with '...' standing for anything."""
    lines = [[line for line in text.splitlines() if line.strip()] for text in (expected, actual)]
    pattern = re.escape("\n".join(lines[0])).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, "\n".join(lines[1])) is not None


@dataclass
class Followed:
    """A page, the folder with the files that it has its reader write, and the ports that stand for those it names."""

    page: Page
    folder: Path
    ports: dict[str, str] = field(default_factory=lambda: {"8000": str(free_port()), "50051": str(free_port())})

    def __post_init__(self) -> None:
        for name, code in self.page.files.items():
            (self.folder / name).write_text(self.here(code), encoding="utf-8")

    def here(self, text: str) -> str:
        """With the ports of this machine."""
        for written, port in self.ports.items():
            text = re.sub(rf"\b{written}\b", port, text)
        return text


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.path)
def followed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return Followed(request.param, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def served(followed: Followed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """The page with its server, where it has one, started by the page's own command."""
    if not followed.page.servers:
        yield followed
        return
    (command,) = followed.page.servers
    port = followed.ports["8000"]
    log = tmp_path_factory.mktemp("log") / "server"
    with (
        log.open("w") as written,
        subprocess.Popen(
            [*shlex.split(command), "--bind", f"127.0.0.1:{port}"],
            cwd=followed.folder,
            env=ENVIRONMENT,
            stderr=written,
        ) as server,
    ):
        try:
            until = time.monotonic() + PATIENCE
            while not listens(int(port)):
                if server.poll() is not None or time.monotonic() > until:
                    pytest.fail(log.read_text())
                time.sleep(0.05)  # there is no event to wait on in another process
            yield followed
        finally:
            server.terminate()


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def test_its_tests_of_your_app_pass(followed: Followed) -> None:
    tests = [name for name in followed.page.files if name.startswith("test_")]
    if not tests:
        pytest.skip("the page has none")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=followed.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
def test_each_command_prints_what_is_below_it(served: Followed) -> None:
    for command, answer in served.page.commands:
        done = subprocess.run(
            ["bash", "-c", served.here(command)],
            cwd=served.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stderr)
        assert not answer or matches(answer, done.stdout), (command, done.stdout, done.stderr)


def test_each_yaml_is_what_it_says(followed: Followed) -> None:
    for name in [name for name in followed.page.files if name.endswith(".yml")]:
        (kind,) = re.findall(r"^jtype: (\w+)", followed.page.files[name], re.MULTILINE)
        kind = kind if kind in ("Deployment", "Flow") else "Executor"
        program = f"from jina_asgi import {kind}; print(type({kind}.load_config({name!r})).__mro__)"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=followed.folder, capture_output=True, text=True, check=False
        )
        assert f".{kind.lower()}.{kind}'>" in done.stdout, (name, done.stderr)


@pytest.mark.processes
def test_the_commands_of_the_command_line_s_page_follow_each_other(tmp_path: Path) -> None:
    page = Page("docs/cli.md")
    port = str(free_port())
    lines = []
    for command, _ in page.commands:
        here = command.replace("12345", port)
        lines += [here]
        if here.startswith("jina-asgi deployment"):
            lines[-1] += " & server=$!"
            lines += ["trap 'kill $server; wait $server' EXIT"]
            lines += [
                f"until jina-asgi ping executor http://localhost:{port} --attempts 1 >/dev/null; do sleep 0.1; done"
            ]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert '"text":' in done.stdout, done.stderr


def test_each_script_of_a_page_can_be_read_by_a_browser(followed: Followed, tmp_path: Path) -> None:
    node = shutil.which("node")
    scripts = [text for kind, text in followed.page.blocks if kind == "js"]
    if not scripts or node is None:
        pytest.skip("no script" if node else "node is not installed")
    for script in scripts:
        file = tmp_path / "script.js"
        file.write_text(script, encoding="utf-8")
        subprocess.run([node, "--check", file], check=True)


def test_continuous_integration_runs_the_test_command_by_the_python_that_it_finds() -> None:
    (test,) = [text for kind, text in README.blocks if kind == "sh" and text.endswith("tox run\n")]
    python, _, rest = test.partition(" ")
    assert "python3" == python
    assert f'"$python" {rest}' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
