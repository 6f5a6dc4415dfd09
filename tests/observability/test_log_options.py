"""`log_config`, `quiet`, `quiet_error` and Jina's variables: what is logged how, unless the application has configured it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jina_asgi import DefinitionError, Deployment
from tests.doubles.rig import LOCAL, ROOT, Served

pytestmark = pytest.mark.processes

PROGRAM = """
import json, logging, os, sys
import httpx
from jina_asgi import Deployment
from tests.doubles.logging_executors import Talks

{before}
with Deployment(Talks, name="lm", protocol="http", **json.loads(sys.argv[1])) as served:
    url = f"http://127.0.0.1:{{served.port}}"
    for endpoint in ("/sync", "/fail"):
        httpx.post(url + endpoint, json={{"data": [{{"text": "x"}}], "header": {{"request_id": "id-1"}}}}, timeout=60)
"""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


def said(before: str = "", *, env: dict[str, str] | None = None, cwd: Path = ROOT, **options: Any) -> list[str]:
    """What a program writes to standard error that serves an Executor with these options, and calls it."""
    program = PROGRAM.format(before=before)
    ran = subprocess.run(
        [sys.executable, "-c", program, json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return ran.stderr.splitlines()


def logged(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("replicas", [None, pytest.param(1, marks=pytest.mark.processes)])
def test_with_json_each_line_of_each_process_is_an_object_with_the_id_of_its_request(replicas: int | None) -> None:
    pooled: dict[str, Any] = {} if replicas is None else {"replicas": replicas}
    lines = logged(said(log_config="json", **pooled))
    runs = next(line for line in lines if line["message"] == "runs sync")
    assert ("id-1", "lm", "replica" if replicas else "worker") == (
        runs["request_id"],
        runs["deployment"],
        runs["process"],
    )
    assert {"id-1"} == {line.get("request_id") for line in lines if line["message"] != "loads"}


@pytest.mark.parametrize("chosen", ["default", "plain"])
def test_with_text_a_line_has_its_time_level_logger_and_request(chosen: str) -> None:
    lines = said(log_config=chosen)
    found = [line for line in lines if re.fullmatch(rf"{STAMP} WARNING \S*logging_executors \[id-1\]: runs sync", line)]
    assert 1 == len(found)
    assert any(line.startswith("ValueError: of no use") for line in lines)
    assert not any("\033" in line for line in lines)  # colours are for terminals


@pytest.mark.parametrize("options", [{"quiet": True}, {"log_config": "quiet"}])
def test_quiet_logs_nothing_of_this_library(options: dict[str, Any]) -> None:
    assert ["loads", "runs sync", "will fail"] == said(**options)  # by a logger of the program's own


def test_without_an_option_nothing_is_configured() -> None:
    lines = said()
    assert lines[:3] == ["loads", "runs sync", "runs sync as an Executor"]  # as Python does where nothing is configured


def test_quiet_error_leaves_tracebacks_out_also_where_the_application_has_configured_logging() -> None:
    for before in ("", 'logging.basicConfig(format="mine: %(message)s")'):
        lines = said(before, quiet_error=True)
        assert any("error " in line and "of no use" in line for line in lines)
        assert not any("Traceback" in line for line in lines)
    assert any("Traceback" in line for line in said())


@pytest.mark.parametrize(
    "before",
    [
        'logging.basicConfig(format="mine: %(message)s")',
        """
h = logging.StreamHandler()
h.setFormatter(logging.Formatter("mine: %(message)s"))
logging.getLogger("jina_asgi").addHandler(h)
""",
    ],
)
def test_what_the_application_has_configured_stays(before: str) -> None:
    check = (
        "\nimport atexit\nstate = lambda: [(l.level, l.handlers[:], l.propagate) for l in"
        ' (logging.getLogger(), logging.getLogger("jina_asgi"))]\nfirst = state()\n'
        'atexit.register(lambda: print("changed" if state() != first else "the same", file=sys.stderr))'
    )
    lines = said(before + check, log_config="json", env={"JINA_LOG_LEVEL": "DEBUG"})
    assert "mine: runs sync as an Executor" in lines
    assert not any(line.startswith("{") for line in lines)
    assert "the same" == lines[-1]


def test_jinas_variables_choose_before_the_option_does() -> None:
    lines = said(log_config="plain", env={"JINA_LOG_CONFIG": "json", "JINA_LOG_LEVEL": "ERROR"})
    messages = [line["message"] for line in logged(lines)]
    assert "runs sync" in messages  # the level is that of this library's loggers
    assert "runs sync as an Executor" not in messages
    assert any(message.startswith("error ") for message in messages)


JINAS = """
handlers: [StreamHandler, FileHandler]
level: WARNING
configs:
  StreamHandler: {format: "{name}@%(process)2d[%(levelname).1s]:%(message)s", formatter: PlainFormatter}
  FileHandler: {output: "log-{name}.jsonl", formatter: JsonFormatter}
"""
PYTHONS = """
version: 1
formatters: {short: {format: "short %(request_id)s %(message)s"}}
filters: {call: {"()": jina_asgi.observability.logs.CallFilter}}
handlers: {err: {class: logging.StreamHandler, formatter: short, filters: [call]}}
root: {handlers: [err]}
"""


def test_a_yaml_is_jinas_or_that_of_logging_config(tmp_path: Path) -> None:
    (tmp_path / "jinas.yml").write_text(JINAS)
    (tmp_path / "pythons.yml").write_text(PYTHONS)
    lines = said(log_config="jinas.yml", cwd=tmp_path)
    assert any(re.fullmatch(r"tests.doubles.logging_executors@\d+\[W\]:runs sync", line) for line in lines)
    kept = logged((tmp_path / "log-jina_asgi.jsonl").read_text().splitlines())
    assert "id-1" == next(line for line in kept if line["message"] == "runs sync")["request_id"]
    assert "short id-1 runs sync" in said(log_config=str(tmp_path / "pythons.yml"))


def test_a_mistake_is_named() -> None:
    with pytest.raises(
        DefinitionError, match=r"log_config.*expected 'default', 'json', 'plain', 'quiet' or the path of a YAML"
    ):
        Deployment("tests.doubles.logging_executors.Talks", log_config="jsn")
    mistakes: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"log_config": "missing.yml"}, {}, "DefinitionError: log_config='missing.yml': .*No such file"),
        ({}, {"JINA_LOG_LEVEL": "LOUD"}, "DefinitionError: the level of the log 'LOUD': expected one of .*SUCCESS"),
        ({}, {"JINA_LOG_CONFIG": "jsn"}, "DefinitionError: JINA_LOG_CONFIG='jsn': expected 'default'"),
    ]
    for options, env, error in mistakes:
        with pytest.raises(subprocess.CalledProcessError) as failed:
            said(env=env, **options)
        assert re.search(error, failed.value.stderr)


def test_nothing_is_configured_before_serving_begins() -> None:
    program = """
import logging
state = lambda: [(l.level, l.handlers[:], l.filters[:]) for l in (logging.getLogger(), logging.getLogger("jina_asgi"))] + [
    logging.getLogRecordFactory(), logging.getLoggerClass(), logging.lastResort]
first = state()
import jina_asgi
from tests.doubles.logging_executors import Talks
jina_asgi.JinaASGI(jina_asgi.Deployment(Talks, log_config="json", quiet_error=True))
assert first == state()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.processes
def test_the_command_and_a_yaml_have_the_options(tmp_path: Path) -> None:
    (tmp_path / "deployment.yml").write_text(
        "jtype: Deployment\nwith: {uses: tests.doubles.logging_executors.Talks, name: lm, log_config: json, replicas: 1}\n"
    )
    line = r'^\{"time".*"message": "loads", "process": "(replica|worker)".*\}$'
    for uses, options, process in (
        ("tests.doubles.logging_executors.Talks", ["--log-config", "json"], "worker"),
        (str(tmp_path / "deployment.yml"), [], "replica"),
    ):
        command = ["jina_asgi", "deployment", "--uses", uses, "--protocol", "http", *options]
        with Served("cli", "", command=command) as server:
            assert process == server.logged(line)[1]
            assert LOCAL in server.url
