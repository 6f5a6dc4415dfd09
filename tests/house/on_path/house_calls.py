"""A program: makes warm calls one after another, and prints when each began and ended: `house_calls.py WALK CALLS`.

The times are those of `time.monotonic_ns`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from jina_asgi import Client, Deployment, Flow, GRPCSidecar, JinaASGI

Echo = importlib.import_module("house_model").Echo
WARM = 5  # calls that are not counted
BODY = b'{"data":[{"text":"hello"}]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/echo",
    "raw_path": b"/echo",
    "root_path": "",
    "query_string": b"",
    "headers": HEADERS,
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}
BATCHING = {"/echo": {"preferred_batch_size": 8, "timeout": 1}}
HTTP: dict[str, Callable[[], Any]] = {
    "http": lambda: Deployment(Echo),
    "batching": lambda: Deployment(Echo, uses_dynamic_batching=BATCHING),
    "pool": lambda: Deployment(Echo, replicas=1, placement="pool"),
    "flow": lambda: Flow().add(uses=Echo, name="first").add(uses=Echo, name="second"),
}


async def times_of(call: Callable[[], Coroutine[Any, Any, None]], calls: int) -> list[tuple[int, int]]:
    """When each of the last `calls` began and ended."""
    times = []
    for _ in range(WARM + calls):
        await asyncio.sleep(0.05)  # what the call before left to do is done by then
        began = time.monotonic_ns()
        await call()
        times.append((began, time.monotonic_ns()))
    return times[WARM:]


async def over_http(source: Any, calls: int) -> list[tuple[int, int]]:
    """Calls of the ASGI application itself, as a server makes them, from the request to the last of the answer."""
    app = JinaASGI(source, wait_ready=True)

    async def call() -> None:
        came: asyncio.Queue[Any] = asyncio.Queue()
        came.put_nowait({"type": "http.request", "body": BODY})
        sent: list[Any] = []

        async def receive() -> Any:
            return await came.get()  # a second time it waits, as the client stays

        async def send(message: Any) -> None:
            sent.append(message)

        await app({**SCOPE, "state": {}, "headers": [*HEADERS]}, receive, send)
        assert sent[0]["status"] == 200, sent
        assert b"hello" in sent[1]["body"], sent

    async with app.lifespan():
        return await times_of(call, calls)


async def over_grpc(calls: int) -> list[tuple[int, int]]:
    """Calls of a client in another process, which is not watched; its times hold the server's."""
    async with GRPCSidecar(Deployment(Echo), "127.0.0.1:0") as sidecar:
        unwatched = {name: value for name, value in os.environ.items() if name != "HOUSE_CALLS"}
        program = [sys.executable, "-P", __file__, "ask", str(calls), str(sidecar.port)]
        asked = await asyncio.create_subprocess_exec(*program, env=unwatched, stdout=subprocess.PIPE)
        answer, _ = await asked.communicate()
        assert asked.returncode == 0
        return [(began, ended) for began, ended in json.loads(answer)]


async def ask(port: int, calls: int) -> list[tuple[int, int]]:
    """Calls by our Client over gRPC."""
    client = Client(port=port, asyncio=True)
    text = importlib.import_module("house_model").Text(text="hello")

    async def call() -> None:
        async for docs in client.post("/echo", [text]):
            assert docs[0].text == "hello"

    return await times_of(call, calls)


if __name__ == "__main__":
    walk, number, *rest = sys.argv[1:]
    if walk == "ask":
        found = asyncio.run(ask(int(rest[0]), int(number)))
    elif walk == "grpc":
        found = asyncio.run(over_grpc(int(number)))
    else:
        found = asyncio.run(over_http(HTTP[walk](), int(number)))
    print(json.dumps(found))
