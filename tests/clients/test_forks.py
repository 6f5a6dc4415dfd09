"""A Client over gRPC and forks: a child asks where it can, and gets an error at once where gRPC cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from jina_asgi import Deployment, Executor, requests

pytest.importorskip("grpc")
pytestmark = [pytest.mark.processes, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")]


class Number(BaseModel):
    value: int = 0


ROOT = Path(__file__).parents[2]
FORKS = """
import contextlib, gc, multiprocessing, sys
from pydantic import BaseModel
from jina_asgi import Client
from jina_asgi.excepts import NotSupportedError

class Number(BaseModel):
    value: int = 0

def ask(client):
    return client.post("/next", Number(value=1), return_type=list[Number])[0].value

def child(client, answers):
    try:
        answers.send(str(ask(client)))
    except NotSupportedError as error:
        answers.send(str(error)[:47])

def leaving(client, answers):
    with contextlib.suppress(NotSupportedError):
        ask(client)
    client.close()
    client._connections.clear()
    del client
    gc.collect()
    answers.send("left")

def forked(client, target=child):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=target, args=(client, theirs))
    process.start()
    said = ours.recv() if ours.poll(20.0) else "silence"
    process.kill()
    return said

client = Client(sys.argv[1])
print(forked(client))  # never used
print(ask(client))
print(forked(client))
print(forked(client, leaving))
client.close()
print(forked(client))
print(ask(client))  # where it was used it still works
for _ in range(10):
    client.close()
    assert "2" == forked(client)
    ask(client)
"""


def test_a_child_of_a_process_with_an_open_client_gets_an_error_at_once_and_others_ask(tmp_path: Path) -> None:
    class Adder(Executor):
        @requests(on="/next")
        def next(self, docs: list[Number]) -> list[Number]:
            return [Number(value=doc.value + 1) for doc in docs]

    (tmp_path / "forks.py").write_text(FORKS)
    with Deployment(Adder, protocol="grpc") as served:
        command = [sys.executable, str(tmp_path / "forks.py"), f"grpc://127.0.0.1:{served.port}"]
        said = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
    assert 0 == said.returncode, said.stderr
    assert [
        "2",
        "2",
        "gRPC was in use in the process that this one wa",
        "left",
        "2",
        "2",
    ] == said.stdout.splitlines(), said.stderr


BEGINS = """
import os, sys, threading
from jina_asgi.protocols.grpc.channels import cut_off, forks_wait, opened

class Made:
    pass

begun, go, kept = threading.Event(), threading.Event(), []

def make():
    begun.set()
    go.wait()
    return Made()

def end():
    with forks_wait():
        begun.set()
        go.wait()
        kept.clear()

def forked():
    pid = os.fork()
    if pid == 0:
        os._exit(bool(cut_off()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for change in (lambda: kept.append(opened(make)), end):
    begun.clear(), go.clear()
    changing = threading.Thread(target=change)
    changing.start()
    begun.wait()
    threading.Timer(0.05, go.set).start()
    print(forked())
    changing.join()
"""


def test_a_fork_while_grpc_begins_or_ends_waits_for_that(tmp_path: Path) -> None:
    (tmp_path / "begins.py").write_text(BEGINS)
    said = subprocess.run(
        [sys.executable, str(tmp_path / "begins.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ["1", "0"] == said.stdout.split(), said.stderr
