"""Sees a client leave, for next to nothing: one ticker, and one `receive()` for each request that takes long.

A task a request costs 15 µs; most requests end before their client could leave. The one `receive()` is never
cancelled before the response is done: gunicorn's asgi worker takes that for a disconnect.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

INTERVAL = 0.1


class Watched:
    """One request being watched. `gone` says that its client left, and that its task was cancelled for that."""

    __slots__ = ("_receive", "_task", "_watcher", "gone", "since")

    def __init__(self, receive: Receive, task: asyncio.Task[Any], since: float) -> None:
        self._receive, self._task, self.since = receive, task, since
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen for the client's leaving."""
        self._watcher = loop.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()


class DisconnectWatch:
    """The requests of one event loop: `begin` with each, `end` with its response."""

    def __init__(self) -> None:
        self._young: dict[Watched, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ticking = False
        self._begun = 0

    def begin(self, receive: Receive) -> Watched:
        """Watch the current task's request, whose body has been read."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        watched = Watched(receive, task, loop.time())
        if loop is not self._loop or not self._is_ticking:
            self._start(loop)
        self._begun += 1
        self._young[watched] = None
        return watched

    def end(self, watched: Watched) -> None:
        """The response is done."""
        self._young.pop(watched, None)
        watched.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:  # another loop (a test's): what the old one had is over
            self._young.clear()
        self._loop, self._is_ticking, self._begun = loop, True, 0
        loop.call_later(INTERVAL, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        old = loop.time() - INTERVAL
        for watched in list(self._young):
            if watched.since > old:
                break
            del self._young[watched]
            watched.watch(loop)
        self._is_ticking = bool(self._young or self._begun)  # an idle server has no timer
        self._begun = 0
        if self._is_ticking:
            loop.call_later(INTERVAL, self._tick, loop)
