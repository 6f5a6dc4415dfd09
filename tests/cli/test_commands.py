"""The commands beside serving: check, ping, client, new, export, pool, and the command itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml

from jina_asgi import Deployment, Executor, JinaASGI, requests
from tests.cli.conftest import Command, Served, Typed, environment, filled, serving
from tests.doubles.uvicorn_server import Serving, free_port

pytestmark = pytest.mark.processes


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that only ask it, in a folder of its own."""
    with serving(filled(tmp_path_factory.mktemp("served")), "deployment", "--uses", "deployment.yml") as served:
        yield served


def test_the_version_is_that_of_the_distribution(command: Command) -> None:
    assert f"{metadata.version('jina-asgi')}\n" == command("-v").stdout == command("--version").stdout
    told = dict(line.split(maxsplit=1) for line in command("-vf").stdout.splitlines())
    assert metadata.version("pydantic") == told["pydantic"]


def test_help_names_every_command_and_every_option_of_a_deployment(command: Command) -> None:
    text = command("--help").stdout
    for name in ("deployment", "flow", "executor", "check", "ping", "client", "pool", "new", "export"):
        assert f"\n  {name} " in text
    options = command("deployment", "--help").stdout
    for option in ("--port", "--replicas", "--uses-dynamic-batching", "--timeout-send", "--ssl-certfile"):
        assert f"  {option} " in options


@pytest.mark.parametrize("uses", ["model.Parrot", "config.yml", "deployment.yml", "flow.yml"])
def test_check_runs_every_endpoint_once(typed: Typed, uses: str) -> None:
    code, output, _ = typed("check", uses)
    lines = [line.split() for line in output.splitlines()[1:-1]]
    assert (0, "3 ok, 0 failed") == (code, output.splitlines()[-1])
    assert [["ok", "/shout"], ["ok", "/times"], ["ok", "/words"]] == [line[:2] for line in lines]
    assert ["1 document"] * 3 == [" ".join(line[4:]) for line in lines]


OLD = "from docarray import DocList\nfrom docarray.documents import TextDoc\nfrom jina import Executor, requests\n\n"
HUB = """class Old(Executor):
    @requests
    def answer(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        return docs
"""


@pytest.mark.parametrize("options", [[], pytest.param(["replicas: 1"], marks=LINUX)])
def test_an_executor_that_imports_jina_is_loaded_as_it_is(folder: Path, command: Command, options: list[str]) -> None:
    (folder / "old.py").write_text(OLD + HUB)
    (folder / "old.yml").write_text("jtype: Old\nmetas: {py_modules: [old.py]}\n")
    (folder / "served.yml").write_text("\n".join(["jtype: Deployment", "uses: old.yml", *options]))
    done = command("check", "served.yml")
    assert (0, "1 ok, 0 failed") == (done.returncode, done.stdout.splitlines()[-1]), done.stderr


def test_check_says_what_an_endpoint_raised_and_exits_with_1(command: Command) -> None:
    done = command("check", "model.Broken")
    assert 1 == done.returncode
    assert "failed  /broken" in done.stdout
    assert "ValueError('the weights are missing')" in done.stdout
    assert "3 ok, 1 failed" in done.stdout


def test_check_of_what_cannot_be_read_exits_with_2(typed: Typed) -> None:
    assert 2 == typed("check", "nowhere.yml")[0]


@pytest.mark.parametrize("target", ["executor", "gateway", "flow"])
def test_ping_says_that_a_server_is_ready(typed: Typed, served: Served, target: str) -> None:
    code, output, error = typed("ping", target, served.url)
    assert 0 == code, error
    assert f"{target} at {served.url}: ready in" in output


class Silent(Executor):
    @requests
    def answer(self, docs, **kwargs):
        return docs


@pytest.mark.parametrize("target", ["executor", "gateway", "flow"])
def test_ping_finds_a_server_of_grpc(typed: Typed, target: str) -> None:
    with Deployment(Silent, quiet=True) as served:
        there = typed("ping", target, f"127.0.0.1:{served.port}")
    gone = typed("ping", target, f"127.0.0.1:{served.port}")
    assert (0, 1) == (there[0], gone[0])
    assert "ready in" in there[1]
    assert "UNAVAILABLE" in gone[1]


def test_ping_exits_with_1_after_its_attempts(typed: Typed) -> None:
    words = ["ping", "executor", f"http://127.0.0.1:{free_port()}", "--attempts", "2", "--timeout", "500"]
    code, output, error = typed(*words)
    assert 1 == code
    assert "ConnectError" in output
    assert "(2 of 2)" in output
    assert "0 of 2 attempts succeeded, expected 1\n" == error


def test_ping_needs_the_given_number_of_good_attempts(command: Command, served: Served) -> None:
    done = command("ping", "flow", served.url, "--attempts", "2", "--min-successful-attempts", "2")
    assert (0, 2) == (done.returncode, done.stdout.count("ready in"))


@pytest.mark.parametrize("data", ['[{"text": "a"}, {"text": "b"}]', "@docs.json", "@docs.jsonl"])
def test_client_prints_a_document_a_line(folder: Path, typed: Typed, served: Served, data: str) -> None:
    (folder / "docs.json").write_text('[{"text": "a"},\n{"text": "b"}]')
    (folder / "docs.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    code, output, error = typed("client", served.url, "--on", "/shout", "--data", data)
    assert (0, "") == (code, error)
    assert [{"text": "A?"}, {"text": "B?"}] == [json.loads(line) for line in output.splitlines()]


def test_client_reads_documents_from_its_input(command: Command, served: Served) -> None:
    lines = '{"text": "a"}\n{"text": "b"}\n'
    done = command("client", served.url, "--on", "/shout", "--data", "-", stdin=lines)
    assert (0, "") == (done.returncode, done.stderr)
    assert [{"text": "A?"}, {"text": "B?"}] == [json.loads(line) for line in done.stdout.splitlines()]


def test_client_sends_parameters(typed: Typed, served: Served) -> None:
    _, output, _ = typed(
        "client", served.url, "--on", "/times", "--data", '{"text": "a"}', "--parameters", '{"times": 3}'
    )
    assert {"text": "aaa"} == json.loads(output)


def test_client_prints_a_stream_as_it_comes(command: Command, served: Served) -> None:
    done = command("client", served.url, "--on", "/words", "--data", '{"text": "one two"}', "--stream")
    assert [{"text": "one"}, {"text": "two"}] == [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["--on", "/words", "--data", '{"text": "a"}'],
            1,
            "/words streams its answer; ask for a stream: stream_doc, or --stream",
        ),
        (["--on", "/shout", "--data", "{"], 2, "--data: expected JSON"),
        (["--on", "/shout", "--data", "5"], 2, "expected a document, a JSON object, got 5"),
        (["--on", "/shout", "--data", "@nowhere"], 2, "No such file"),
        (["--on", "/shout", "--data", "{}", "--parameters", "[]"], 2, "--parameters: expected a JSON object"),
        (["--on", "/words", "--stream"], 2, "--stream takes one document"),
        (["--on", "/nowhere", "--data", '{"text": "a"}'], 1, "no such endpoint /nowhere"),
        (["--on", "/shout", "--data", '{"other": 1}'], 1, "text"),
    ],
)
def test_client_says_what_went_wrong(typed: Typed, arguments: list[str], code: int, said: str) -> None:
    with Serving(JinaASGI("config.yml", wait_ready=True)) as server:
        told = typed("client", server.url, *arguments)
    assert (code, "") == told[:2]
    assert said in told[2]


def test_client_of_no_server_exits_with_1(typed: Typed) -> None:
    assert 1 == typed("client", f"http://127.0.0.1:{free_port()}", "--on", "/shout", "--data", "{}")[0]


@pytest.mark.parametrize("kind", ["app", "deployment", "flow"])
def test_a_new_project_passes_its_own_tests_and_serves(folder: Path, command: Command, kind: str) -> None:
    made = command("new", "my-parrot", "--type", kind)
    assert 0 == made.returncode, made.stderr
    project = folder / "my-parrot"
    for words in (["pytest", "-q", "-p", "no:randomly"], ["jina_asgi", "check", "config.yml"]):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=project, env=environment(), capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, done.stdout + done.stderr
    if kind == "app":
        return
    serve, ask = [
        shlex.split(line)[1:] for line in re.findall(r"`(jina-asgi (?!check).*?)`", (project / "README.md").read_text())
    ]
    with serving(project, *serve, "--port", "0") as served:
        done = command(*[served.url.removeprefix("http://") if word == "localhost:12345" else word for word in ask])
        assert {"text": "HI!"} == json.loads(done.stdout), done.stderr


def test_the_examples_of_help_work_without_the_extra_grpc(folder: Path) -> None:
    (folder / "grpc").mkdir()
    (folder / "grpc" / "__init__.py").write_text("raise ImportError('not installed')\n")
    without = {"PYTHONPATH": os.pathsep.join([str(folder), environment()["PYTHONPATH"]])}

    def command(*words: str, cwd: Path = folder) -> str:
        start = [sys.executable, "-m", "jina_asgi"]
        env = environment() | without
        return subprocess.run([*start, *words], cwd=cwd, env=env, capture_output=True, text=True, check=True).stdout

    lines = re.findall(r"^ +jina-asgi (.*?)(?:   .*)?$", command("--help"), re.MULTILINE)
    new, check, serve, ask = [shlex.split(line) for line in lines]
    command(*new)
    project = folder / new[1]
    command(*check, cwd=project)
    with serving(project, *[word.replace("12345", "0") for word in serve], **without) as served:
        asked = [word.replace("localhost:12345", served.url.removeprefix("http://")) for word in ask]
        assert {"text": "HI!"} == json.loads(command(*asked))


@pytest.mark.parametrize("protocol", ["http", "grpc", "websocket"])
def test_a_server_is_asked_in_what_it_speaks_where_no_scheme_says_it(typed: Typed, protocol: str) -> None:
    with Deployment(Silent, protocol=protocol, quiet=True) as served:
        host = f"127.0.0.1:{served.port}"
        assert (0, "") == typed("client", host, "--on", "/default", "--data", '{"text": "a"}')[::2]
        assert 0 == typed("ping", "executor", host)[0]


def test_new_writes_over_nothing(folder: Path, typed: Typed) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "app.py").write_text("mine")
    code, _, error = typed("new", "mine")
    assert 2 == code
    assert "mine exists already" in error
    assert ["mine"] == [file.read_text() for file in (folder / "mine").iterdir()]
    assert 2 == typed("new", "0 no name")[0]


def test_the_schema_takes_what_is_loaded_and_refuses_what_is_not(folder: Path, typed: Typed) -> None:
    assert 0 == typed("export", "schema", "--out", "schema.json")[0]
    schema = json.loads((folder / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    taken = jsonschema.Draft202012Validator(schema)
    for name in ("config.yml", "deployment.yml", "flow.yml"):
        taken.validate(yaml.safe_load((folder / name).read_text()))
    for text in (
        "{jtype: Flow, executors: [{uses: X, replicas: '$N', uses_dynamic_batching: {/a: {preferred_batch_size: 2}}}]}",
        "{jtype: Deployment, uses: {jtype: X, with: {a: 1}}, monitoring: true, env: {A: 1}}",
    ):
        taken.validate(yaml.safe_load(text))
    for text in (
        "{jtype: Flow, executers: []}",
        "{jtype: Deployment, uses: X, replicsa: 1}",
        "{jtype: Deployment, with: {uses: X, replicas: 0}}",
        "{jtype: X, py_module: a.py}",
        "{jtype: Flow, executors: [{uses: X, floating: 3}]}",
    ):
        assert not taken.is_valid(yaml.safe_load(text)), text


def test_a_flowchart_is_mermaids_text(folder: Path, typed: Typed) -> None:
    assert "flowchart LR" in typed("export", "flowchart", "flow.yml")[1]
    assert 0 == typed("export", "flowchart", "flow.yml", "--out", "flow.mmd")[0]
    assert "parrot" in (folder / "flow.mmd").read_text()
    assert 2 == typed("export", "flowchart", "nowhere.yml")[0]


@pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")
def test_pool_is_json_where_it_is_asked_for(command: Command) -> None:
    assert isinstance(json.loads(command("pool", "--json").stdout), list)


def test_ping_asks_one_server(typed: Typed) -> None:
    code, _, error = typed("ping", "executor", "127.0.0.1:1,127.0.0.1:2")
    assert code != 0
    assert "one server" in error
