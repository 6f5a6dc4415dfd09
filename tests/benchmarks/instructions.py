"""Counts the instructions of one warm call, which no other load on the machine changes, for one or more checkouts.

python tests/benchmarks/instructions.py [--calls http,sync] [TREE ...]

It needs valgrind, whose callgrind counts all instructions of the process outside the kernel; a call of the kernel costs time,
but hardly an instruction here. Trees must have the dependencies of this environment. A call over HTTP is one of the ASGI
application, without a server. gRPC is not counted: its core does not connect within valgrind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

ROOT = Path(__file__).parent.parent.parent
WARM, COUNTED = 50, 200
CALLS = {
    "http": "an echo over HTTP",
    "fastapi": "the same, mounted in FastAPI",
    "sync": "the same of a synchronous endpoint",
    "stream": "a stream of 200 tokens over HTTP",
    "batching": "an echo with batching, in process",
    "runners": "an echo in process",
}
TEXT = "0123456789abcdef0123456789abcdef"
BODY = b'{"data":[{"text":"%s"}]}' % TEXT.encode()
Call = Callable[[], Awaitable[Any]]


def measured(tree: Path, call: str) -> int:
    """Instructions of one such call with the package of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree.resolve()),
            "PYTHONHASHSEED": "0",
            "PYTHONWARNINGS": "ignore",
        }
        program = [*valgrind, sys.executable, str(Path(__file__).resolve()), "--run", call]
        done = subprocess.run(program, check=False, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        without, with_calls = (_total(Path(folder, f"out.{number}")) for number in (2, 3))
        return (with_calls - without) // COUNTED


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def control(*options: str) -> None:
    """Let callgrind do something in this process, which must not wait in the kernel for that."""
    command = ["callgrind_control", *options, str(os.getpid())]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    await process.wait()


async def run(name: str) -> None:
    """Make the calls, with a dump of callgrind's count before and after them."""
    async with called(name) as call:
        for _ in range(WARM):
            await call()
        await control("--instr=on")
        await control("--dump")
        await control("--dump")
        for _ in range(COUNTED):
            await call()
        await control("--dump")


@asynccontextmanager
async def called(name: str) -> AsyncIterator[Call]:
    """What makes one call, while the Executor is loaded."""
    from serve_jina_asgi import Text, Work

    from jina_asgi import Deployment, JinaASGI, mount

    async with AsyncExitStack() as stack:
        if name in ("runners", "batching"):
            batched = {"/echo": {"preferred_batch_size": 1, "timeout": 1}} if name == "batching" else {}
            deployment = await stack.enter_async_context(Deployment(Work, uses_dynamic_batching=batched))
            yield lambda: deployment.call("/echo", [Text(text=TEXT)])
        elif name == "fastapi":
            host = FastAPI()
            mount(host, "/lm", Work, wait_ready=True)
            await stack.enter_async_context(host.router.lifespan_context(host))
            yield lambda: request(host, "/lm/echo")
        else:
            app = JinaASGI(Work, wait_ready=True)
            await stack.enter_async_context(app.lifespan())
            path = {"sync": "/echo_sync", "stream": "/stream"}.get(name, "/echo")
            body = b'{"data":{"text":"hello"}}' if name == "stream" else BODY
            yield lambda: request(app, path, body)


async def request(app: Any, path: str, body: bytes = BODY) -> None:
    """One request as a server makes it, up to the end of its answer."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1:80"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    left = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0

    async def receive() -> Any:
        return left.pop() if left else await asyncio.Future()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    assert status == 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, metavar="TREE", help="checkouts (default: this one)")
    parser.add_argument("--calls", default=",".join(CALLS), help="%(default)s")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        asyncio.run(run(options.run))
        return
    trees = options.trees or [ROOT]
    print("| instructions of one call | " + " | ".join(map(str, trees)) + " |\n|---|" + "--:|" * len(trees))
    for name in options.calls.split(","):
        counts = [f"{measured(tree, name):,}" for tree in trees]
        print(f"| {CALLS[name]} | " + " | ".join(counts) + " |", flush=True)


if __name__ == "__main__":
    main()
