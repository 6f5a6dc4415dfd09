"""What the tests serve: an Executor that tells the test's journal what becomes of its work, at the root and mounted.

A document's `name` is the test's word for one call; what is noted is "<what> <name>".
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from docarray import BaseDoc, DocList
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Receive, Scope, Send

from jina_asgi import Context, Deployment, Executor, JinaASGI, Limits, mount, requests
from tests.doubles.rig import note


class Job(BaseDoc):
    name: str = ""
    count: int = 0
    pause: float = 0.0
    text: str = ""
    pid: int = 0


class Model(Executor):
    def __init__(self, load: float = 0.0, fail: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        note("loading")
        threading.Event().wait(load)
        if fail:
            raise RuntimeError("SECRET reason")
        note("loaded")

    def close(self) -> None:
        note("unloaded")

    @requests(on="/echo")
    async def echo(self, docs: DocList[Job]) -> DocList[Job]:
        for doc in docs:
            doc.pid = os.getpid()
        return docs

    @requests(on="/slow")
    async def slow(self, docs: DocList[Job]) -> DocList[Job]:
        note(f"began {docs[0].name}")
        await asyncio.sleep(docs[0].pause)
        return docs

    @requests(on="/wait")
    async def wait(self, docs: DocList[Job]) -> DocList[Job]:
        """Waits for good, until it is cancelled."""
        note(f"began {docs[0].name}")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note(f"cancelled {docs[0].name}")
            raise
        return docs

    @requests(on="/hold")
    def hold(self, docs: DocList[Job], context: Context) -> DocList[Job]:
        """Holds the Executor's one thread until it is told that nobody waits, or for `pause` seconds."""
        note(f"began {docs[0].name}")
        end = time.monotonic() + (docs[0].pause or 20.0)
        while not context.cancelled and time.monotonic() < end:
            threading.Event().wait(0.01)
        note(f"{'told' if context.cancelled else 'done'} {docs[0].name}")
        return docs

    @requests(on="/quick")
    def quick(self, docs: DocList[Job]) -> DocList[Job]:
        note(f"ran {docs[0].name}")
        return docs

    @requests(on="/stream")
    async def stream(self, doc: Job) -> AsyncIterator[Job]:
        """`count` tokens (0: no end), one every `pause` seconds (below 0: without letting go of the loop)."""
        sent = 0
        try:
            while not doc.count or sent < doc.count:
                yield Job(name=doc.name, count=sent, text=doc.text)
                sent += 1
                if doc.pause >= 0:
                    await asyncio.sleep(doc.pause)
        finally:
            note(f"closed {doc.name}")
            note(f"made {doc.name}")
            note(str(sent))

    @requests(on="/sync-stream")
    def sync_stream(self, doc: Job) -> Iterator[Job]:
        sent = 0
        try:
            while not doc.count or sent < doc.count:
                yield Job(name=doc.name, count=sent)
                sent += 1
                threading.Event().wait(doc.pause)
        finally:
            note(f"closed {doc.name}")

    @requests(on="/idle-stream")
    async def idle_stream(self, doc: Job) -> AsyncIterator[Job]:
        """One token, then nothing for good."""
        try:
            yield doc
            await asyncio.Event().wait()
        finally:
            note(f"closed {doc.name}")


class PassOn(BaseHTTPMiddleware):
    """Middleware as most hosts have it."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


@asynccontextmanager
async def of_host(app: Any) -> AsyncIterator[dict[str, str]]:
    note("host starts")
    async with asgi.lifespan():
        yield {"told": "by the host"}
    note("host has ended")


LIMITS = Limits(stream_idle=0.2)
SLOW = float(os.environ.get("LOAD", "0"))

asgi = JinaASGI(Model, limits=LIMITS)
host = FastAPI(lifespan=of_host, middleware=[Middleware(PassOn), Middleware(PassOn)])
mount(host, "/lm", Model, limits=LIMITS)


@host.get("/lm-slow-turns")
async def slow_turns(seconds: float) -> None:
    """From now on each turn of the loop takes so long, as on a machine that is busy with something else."""
    loop = asyncio.get_running_loop()

    def turn() -> None:
        time.sleep(seconds)
        loop.call_soon(turn)

    turn()


@host.get("/lm-residue")
async def residue() -> dict[str, list[str]]:
    """What this process holds: equal before and after, whoever came and went."""
    return {
        "tasks": sorted(str(task.get_coro()).partition(" at ")[0] for task in asyncio.all_tasks()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": ["file"] * len(os.listdir("/proc/self/fd")),
    }


async def both(scope: Scope, receive: Receive, send: Send) -> None:
    """`asgi` at the root, and `host`, in one server; one lifespan starts both."""
    at_root = scope["type"] != "lifespan" and not scope["path"].startswith("/lm")
    await (asgi if at_root else host)(scope, receive, send)


#: Loads for LOAD seconds, fails with FAIL=1, and waits no longer for it than a test does.
loading = JinaASGI(
    Deployment(uses=Model, uses_with={"load": SLOW, "fail": bool(os.environ.get("FAIL"))}), startup_wait=0.2
)
#: The same, but startup waits for the end of loading.
waiting = JinaASGI(
    Deployment(uses=Model, uses_with={"load": SLOW, "fail": bool(os.environ.get("FAIL"))}), wait_ready=True
)

#: A host that forwards no lifespan: what it mounts starts by itself.
plain = FastAPI()
plain.mount("/lm", JinaASGI(Deployment(uses=Model, uses_with={"load": SLOW})))
