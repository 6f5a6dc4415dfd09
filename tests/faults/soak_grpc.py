"""Starts and stops under gunicorn with four workers and gRPC: nothing hangs, nothing is left, a port in use is refused.

`python tests/faults/soak_grpc.py [--starts 200]`. Each start is asked over both ports, and while it runs a second server
is started on its port of gRPC, which has to end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from jina_asgi.protocols.grpc.remote import ping_problem
from tests.doubles.uvicorn_server import free_port, free_ports

APP = """
from docarray import DocList, BaseDoc
from jina_asgi import Deployment, Executor, JinaASGI, requests

class Text(BaseDoc):
    text: str = ""

class Echo(Executor):
    @requests
    def echo(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return docs

asgi = JinaASGI(Deployment(Echo), grpc="127.0.0.1:{port}")
"""


def started(folder: Path, http: int, log: Path) -> subprocess.Popen:
    command = ["-m", "gunicorn", "-c", "python:jina_asgi.gunicorn", "-w", "4", "-b", f"127.0.0.1:{http}", "app:asgi"]
    with log.open("w") as written:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=written, stderr=written, start_new_session=True
        )


def group(pid: int) -> list[int]:
    """The processes of a session that are left."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def ready(http: int, grpc_port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, f"gunicorn ended with {process.returncode}"
        try:
            if httpx.get(f"http://127.0.0.1:{http}/-/ready", trust_env=False).status_code == 200 and not ping_problem(
                f"127.0.0.1:{grpc_port}", whole=True, timeout=5
            ):
                return
        except httpx.HTTPError:
            time.sleep(0.05)  # nobody says when gunicorn listens
    raise AssertionError("it was not ready within a minute")


def stopped(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(40)
    assert process.returncode == 0, process.returncode
    assert group(process.pid) == [], "processes were left"


def once(folder: Path, number: int) -> None:
    grpc_port, http = free_ports(2)
    (folder / "app.py").write_text(APP.replace("{port}", str(grpc_port)))
    process = started(folder, http, folder / "log")
    try:
        ready(http, grpc_port, process)
        if number % 10 == 0:
            second = started(folder, free_port(), folder / "second")
            try:
                assert second.wait(60) != 0
                assert "in use" in (folder / "second").read_text()
            finally:
                for left in group(second.pid):
                    os.kill(left, signal.SIGKILL)
        stopped(process)
    except BaseException:
        print((folder / "log").read_text(), file=sys.stderr)
        raise
    finally:
        for left in group(process.pid):
            os.kill(left, signal.SIGKILL)
    assert ping_problem(f"127.0.0.1:{grpc_port}", whole=False, timeout=2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=200)
    starts = parser.parse_args().starts
    with tempfile.TemporaryDirectory() as folder:
        for number in range(starts):
            once(Path(folder), number)
            print(f"{number + 1} of {starts}", end="\r", flush=True)
    print(f"{starts} starts and stops: no hang, no process left, every port free again")


if __name__ == "__main__":
    main()
