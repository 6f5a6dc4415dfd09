"""What an Executor logs and raises in a replica reaches the log, as the application that it belongs to has it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from jina_asgi import ExecutorError, ReplicaPool
from jina_asgi.errors.load_failure import TRACE_LIMIT, RemoteTraceback, cause_traceback
from jina_asgi.processes.logs import LogConfig
from tests.doubles.replica_executors import Talker, Word
from tests.doubles.rig import ROOT, Served

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("on", ["/fail", "/fail_async", "/fail_batched"])
async def test_an_error_that_came_from_a_replica_has_the_traceback_of_the_executors_own_code(on: str) -> None:
    async with ReplicaPool(Talker, replicas=1) as pool:
        with pytest.raises(ExecutorError) as failed:
            await pool.call(on, Word(text="grumpy"))
    links, link = [], failed.value.__cause__
    while link is not None:
        links.append(link)
        link = link.__cause__
    assert isinstance(links[-1], RemoteTraceback)
    trace = str(links[-1])
    assert "ValueError: grumpy" in trace
    assert "in _fail" in trace


def test_a_traceback_is_short_and_ends_where_the_error_was_raised() -> None:
    failed = ExecutorError("failed")
    failed.__cause__ = ValueError("x" * 3 * TRACE_LIMIT + "the end \ud800")
    trace = cause_traceback(failed)
    assert TRACE_LIMIT >= len(trace) - len("\\ud800")
    assert trace.endswith("the end \\ud800\n")


CONFIGURED = """
import logging

from jina_asgi import Deployment, JinaASGI

logging.basicConfig(level=logging.INFO, format="{levelname}|{name}|{message}", style="{")
logging.getLogger("talker").setLevel(logging.DEBUG)
logging.getLogger("quiet").setLevel(logging.ERROR)
app = JinaASGI(Deployment("tests.doubles.replica_executors.Talker", name="lm", replicas=1))
"""


def test_a_replica_logs_as_the_application_does_and_a_500_names_the_error_that_the_log_has(tmp_path: Path) -> None:
    (tmp_path / "configured.py").write_text(CONFIGURED)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with Served("gunicorn-uvicorn", "configured:app", "--workers", "1", env=env) as server, server.client() as http:
        assert 200 == http.post("/log", json={"data": [{"text": "hello"}]}).status_code
        server.logged(r"^\[lm/rep-0\] DEBUG\|talker\|debug hello$")
        server.logged(r"^\[lm/rep-0\] INFO\|talker\|info hello$")
        failed = http.post("/fail", json={"data": [{"text": "grumpy"}]})
        assert 500 == failed.status_code
        server.logged(rf"^ERROR\|jina_asgi\|error {failed.json()['error']['id']}: ")
        server.logged(r"in _fail$")
        server.logged(r"^ValueError: grumpy$")
        assert "warning hello" not in server.log
        assert "_fail" not in failed.text


LEFT_ALONE = """
import logging
from jina_asgi.processes.logs import LogConfig

LogConfig.current().apply("[x] ")
logging.getLogger("early").warning("before")
logging.basicConfig(level=logging.INFO, format="mine: %(message)s")
logging.getLogger("late").info("after")
"""


def test_where_the_application_has_set_nothing_up_the_module_of_an_executor_may() -> None:
    said = subprocess.run([sys.executable, "-c", LEFT_ALONE], capture_output=True, text=True, check=True).stderr
    assert ["[x] WARNING early: before", "mine: after"] == said.splitlines()


class Coloured(logging.Formatter):
    """A class that another process may not have."""


@pytest.mark.parametrize(
    ("formatter", "expected"),
    [
        (logging.Formatter("%(asctime)s %(message)s", "%H:%M"), ("%(asctime)s %(message)s", "%H:%M", "%")),
        (logging.Formatter("$message", style="$"), ("$message", None, "$")),
        (logging.Formatter("%(tenant)s %(message)s"), None),
        (Coloured("%(message)s"), None),
        (None, None),
    ],
)
def test_a_format_is_passed_on_if_another_process_can_have_it(
    formatter: logging.Formatter | None, expected: tuple[str, str | None, str] | None
) -> None:
    handler, root = logging.NullHandler(), logging.getLogger()
    handler.setFormatter(formatter)
    before = root.handlers[:]
    root.handlers[:] = [handler]
    try:
        told = LogConfig.current()
    finally:
        root.handlers[:] = before
    assert (expected or (LogConfig().format, None, "%")) == (told.format, told.dates, told.style)
