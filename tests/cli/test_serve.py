"""`jina-asgi deployment`, `flow` and `executor`: what is served, what ends it, and how mistakes are told."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Command, Typed, serving, started

pytestmark = pytest.mark.processes

AROUND = ("--uses-before", "model.Dots", "--uses-after", "{jtype: model.Dots}")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["deployment", "--uses", "model.Parrot", "--protocol", "http"], "HI!"),
        (["deployment", "--uses", "model:Parrot", "--protocol=http", "--uses-with", "mark=1e3"], "HI1000.0"),
        (["deployment", "--uses", "model:Parrot", "--protocol=http", "--uses_with", '{"mark": "+"}'], "HI+"),
        (["deployment", "--uses", "config.yml", "--protocol", "http", "--option", "monitoring=true"], "HI?"),
        (["deployment", "--uses", "deployment.yml", "--uses-with", "mark=#"], "HI#"),
        (["executor", "--uses", "config.yml", "--protocol", "http"], "HI?"),
        (["flow", "--uses", "flow.yml"], "HI?"),
        (["deployment", "--uses=deployment.yml", "--shards=2", *AROUND], "HI...?..."),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_uses_names_is_served(folder: Path, arguments: list[str], answer: str) -> None:
    with serving(folder, *arguments) as served:
        told = httpx.post(f"{served.url}/shout", json={"data": [{"text": "hi"}]})
        assert [{"text": answer}] == told.json()["data"]
        assert 0 == served.end()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_and_no_traceback(folder: Path, number: int) -> None:
    with serving(folder, "deployment", "--uses", "deployment.yml") as served:
        assert (0, "") == served.end(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_still_loads(folder: Path, number: int) -> None:
    with started(folder, "deployment", "--uses", "model.Slow", "--protocol", "http") as served:
        served.line("loading")
        assert (0, "") == served.end(number)


def test_a_port_may_be_chosen_once(folder: Path, command: Command) -> None:
    with serving(folder, "deployment", "--uses", "deployment.yml") as served:
        port = served.url.rpartition(":")[2]
        done = command("deployment", "--uses", "deployment.yml", "--port", port)
        assert (1, "") == (done.returncode, done.stdout)
        assert f"error: port {port} of 127.0.0.1 is in use; choose another, or none for a free one\n" == done.stderr


def test_grpc_is_spoken_unless_another_protocol_is_named(folder: Path, typed: Typed) -> None:
    with started(folder, "deployment", "--uses", "model.Parrot") as served:
        where = served.line(r"answers at (grpc\S+)")[1]
        assert 0 == typed("ping", "flow", where)[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deployment", "--uses", "nowhere.yml"], "nowhere.yml: No such file"),
        (["deployment", "--uses", "nowhere.Class"], "there is no module 'nowhere'"),
        (
            ["deployment", "--uses", "model.Nobody"],
            "there is no class 'Nobody'; the Executors there: Dots, Parrot, Broken, Slow",
        ),
        (["deployment", "--uses", "model.Parrot", "--replicas", "-1"], "option 'replicas': Input should be greater"),
        (["deployment", "--uses", "model.Parrot", "--port", "70000"], "option 'port': Input should be less than"),
        (["deployment", "--uses", "model.Parrot", "--option", "replicsa=1"], "did you mean 'replicas'?"),
        (["deployment", "--uses", "model.Parrot", "--option", "replicas"], "expected NAME=VALUE"),
        (["deployment", "--uses", "model.Parrot", "--uses-with", "mark"], "expected KEY=VALUE"),
        (["deployment", "--uses", "model.Parrot", "--replicsa", "1"], "--replicas"),
        (["deployment", "--uses", "flow.yml"], "flow.yml:1:1: expected the YAML of a Deployment or Executor, got"),
        (["executor", "--uses", "deployment.yml"], "deployment.yml:1:1: expected the YAML of an Executor, got that of"),
        (["flow", "--uses", "deployment.yml"], "deployment.yml:1:1: expected the YAML of a Flow, got that of a"),
        (["flow", "--uses", "model.Parrot"], "expected the path of a YAML of a Flow"),
        (["deployment"], "Missing option '--uses'"),
        (["deploy"], "No such command"),
    ],
)
def test_a_mistake_exits_with_2_and_says_what_was_expected(typed: Typed, arguments: list[str], said: str) -> None:
    code, output, error = typed(*arguments)
    assert (2, "") == (code, output)
    assert said in error


def test_a_mistake_has_no_traceback(command: Command) -> None:
    done = command("deployment", "--uses", "nowhere.Class")
    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("error: nowhere: there is no module 'nowhere'")
    assert 1 == len(done.stderr.splitlines())


def test_all_that_is_wrong_with_a_file_is_reported_with_its_places(folder: Path, typed: Typed) -> None:
    (folder / "wrong.yml").write_text("jtype: Deployment\nwith:\n  uses: config.yml\n  replicsa: 2\n  port: 70000\n")
    code, _, error = typed("deployment", "--uses", "wrong.yml")
    assert 2 == code
    first, second = sorted(error.splitlines())
    assert first.startswith("error: ")
    assert "wrong.yml:4:3: Deployment has no option 'replicsa'; did you mean 'replicas'?" in first
    assert "wrong.yml:5:3: Deployment's option 'port': Input should be less than or equal to 65535" in second


def test_what_an_executor_raises_keeps_its_traceback(folder: Path, command: Command) -> None:
    (folder / "model.py").write_text(
        "from jina_asgi import Executor\n\n\nclass Parrot(Executor):\n    def __init__(self, **kwargs):\n        1 / 0\n"
    )
    done = command("deployment", "--uses", "model.Parrot", "--protocol", "http")
    assert 1 == done.returncode
    assert "1 / 0" in done.stderr
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
