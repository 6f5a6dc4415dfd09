"""What the neighbours' tests serve, in a process of its own: how long its loop was held, and how large it grew, is asked there."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from jina_asgi import Deployment, Executor, JinaASGI, requests
from tests.faults import neighbour_answers
from tests.faults.neighbour_answers import Holds


class Kid(BaseModel):
    n: int = 0


class Part(BaseDoc):
    kids: list[Kid] = []


class Everything(BaseDoc):
    text: str = ""
    texts: list[str] = []
    numbers: list[float] = []
    kids: list[Kid] = []
    parts: DocList[Part] | None = None
    pairs: dict[str, int] = {}
    either: list[int | list[int] | dict[str, Kid] | Kid | list[list[Kid]] | bool] = []
    any: Any = None


class Vector(BaseDoc):
    vector: NdArray | None = None
    text: str = ""


class Answers(Executor):
    """Does nothing, so that only the library is at work."""

    @requests(on="/count")
    async def count(self, docs: DocList[Everything]) -> DocList[Everything]:
        return DocList[Everything]([Everything(id="a", text=str(len(docs)))])

    @requests(on="/echo")
    async def echo(self, docs: DocList[Everything]) -> DocList[Everything]:
        return docs

    @requests(on="/vectors")
    def vectors(self, docs: DocList[Vector]) -> DocList[Vector]:
        return docs


def memory(kind: str) -> int:
    """Bytes of this process that are in memory (`VmRSS`), or were at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


class Watched:
    """An application, and `/holds` beside it: since it was asked last, the longest hold of the loop in seconds, and the
    bytes by which this process had grown at its largest.

    The time in which this process did not run, as on a busy machine, does not count.
    """

    def __init__(self, asgi: JinaASGI) -> None:
        self._asgi, self._holds, self._size = asgi, Holds(), memory("VmRSS")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/holds":
            grown, port = memory("VmHWM") - self._size, self._asgi.sidecar.port if self._asgi.sidecar is not None else 0
            told = {"longest": self._holds.longest(), "grown": grown, "grpc": port}
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            self._size = memory("VmRSS")
            await JSONResponse(told)(scope, receive, send)
            self._holds.longest()  # not what this has taken
            return
        await self._asgi(scope, receive, send)


#: What is served, by the name of its place.
SERVED: dict[str, Callable[[], Any]] = {
    "requests": lambda: Answers,
    "answers of a worker": lambda: neighbour_answers.Answers,
    "answers of a pool": lambda: Deployment("tests.faults.neighbour_answers.Answers", replicas=1, name="answers"),
}


def source(place: str) -> Any:
    """What is served at a place; "over http://127.0.0.1:8000" is what that server answers."""
    if place.startswith("over "):
        return Deployment(name="there", external=True, host=place.removeprefix("over "))
    return SERVED[place]()


async def main(place: str) -> None:
    """Serve on a free port until standard input ends; the port is said first."""
    watched = Watched(JinaASGI(source(place), grpc="127.0.0.1:0", wait_ready=True))
    config = uvicorn.Config(watched, port=0, log_level="warning", ws_max_size=2**27, ws_per_message_deflate=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
