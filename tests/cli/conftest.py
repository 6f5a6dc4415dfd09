"""The real command, in a process of its own, in a folder with an Executor and its YAML."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jina_asgi.cli import main

ROOT = Path(__file__).parent.parent.parent
MODEL = """
import time

from pydantic import BaseModel, Field

from jina_asgi import Executor, requests


class Text(BaseModel):
    text: str


class Options(BaseModel):
    times: int = Field(ge=2)


class Dots(Executor):
    @requests(on="/shout")
    def shout(self, docs: list[Text]) -> list[Text]:
        return [Text(text=f"{doc.text}...") for doc in docs]


class Parrot(Executor):
    def __init__(self, mark: str = "!", **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    @requests(on="/shout")
    def shout(self, docs: list[Text]) -> list[Text]:
        return [Text(text=doc.text.upper() + str(self.mark)) for doc in docs]

    @requests(on="/times")
    def times(self, docs: list[Text], parameters: Options) -> list[Text]:
        return [Text(text=doc.text * parameters.times) for doc in docs]

    @requests(on="/words")
    async def words(self, doc: Text) -> Text:
        for word in doc.text.split():
            yield Text(text=word)


class Broken(Parrot):
    @requests(on="/broken")
    def broken(self, docs: list[Text]) -> list[Text]:
        raise ValueError("the weights are missing")


class Slow(Parrot):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        print("loading", flush=True)
        time.sleep(60)
"""
FILES = {
    "model.py": MODEL,
    "config.yml": "jtype: Parrot\npy_modules: model.py\nwith:\n  mark: '?'\n",
    "deployment.yml": "jtype: Deployment\nwith:\n  uses: config.yml\n  protocol: http\n",
    "flow.yml": "jtype: Flow\nwith:\n  protocol: http\nexecutors:\n  - uses: config.yml\n    name: parrot\n",
}
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Typed = Callable[..., tuple[int, str, str]]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def filled(folder: Path) -> Path:
    """The folder, with the Executor and its YAML."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


@pytest.fixture
def command(folder: Path) -> Command:
    """Runs `jina-asgi` with these arguments there."""

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jina_asgi", *arguments],
            cwd=folder,
            env=environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def typed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """As `command`, in this process: the exit code, and what was printed."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds to it: a process's own, put back after
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # it adds to this as well
    monkeypatch.delitem(sys.modules, "model", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code, *capsys.readouterr()  # type: ignore[return-value]  # a number, always

    return run


class Served:
    """A command that serves."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.url = process, ""

    def line(self, pattern: str) -> re.Match[str]:
        """The next line of its output that has this."""
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if found := re.search(pattern, line):
                return found
        pytest.fail(seen)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and what it still said."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


@contextmanager
def started(folder: Path, *arguments: str, **env: str) -> Iterator[Served]:
    """A command that runs, until this is left; `env` is over the environment of the others."""
    with subprocess.Popen(
        [sys.executable, "-m", "jina_asgi", *arguments],
        cwd=folder,
        env=environment() | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


@contextmanager
def serving(folder: Path, *arguments: str, **env: str) -> Iterator[Served]:
    """A command that serves, once it does; `url` is where."""
    with started(folder, *arguments, **env) as served:
        served.url = served.line(r"answers at (http\S+)")[1]
        yield served
