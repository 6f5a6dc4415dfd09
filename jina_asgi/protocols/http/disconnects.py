"""Notices that a client disconnects, cheaply: one ticker, and one `receive()` for each request that takes long.

A task a request costs 15 µs; most requests end before their client could leave. The one `receive()` is never
cancelled before the response is done: gunicorn's asgi worker takes that for a disconnect.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from starlette.types import Receive

from jina_asgi.concurrency.tasks import log_failure, start_task

logger = logging.getLogger("jina_asgi")

INTERVAL = 0.1


class Watched:
    """One request being watched.

    Attributes:
        gone: its client has left, and its task was cancelled.
        answered: the end of the response is being sent, so that a client which leaves from now on has its answer.
    """

    __slots__ = ("_receive", "answered", "gone", "since", "task", "watcher")

    def __init__(self, receive: Receive, task: asyncio.Task[Any], since: float) -> None:
        self._receive, self.task, self.since = receive, task, since
        self.watcher: asyncio.Task[None] | None = None
        self.gone = self.answered = False

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen for the client's disconnect."""
        self.watcher = start_task(self._wait(), log_failure("watching for a client's leaving"))

    async def _wait(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception:  # errors of a server or a middleware do not end the request
            logger.debug("cannot listen for the client's disconnect", exc_info=True)
            return
        if not self.answered:
            self.gone = True
            self.task.cancel()


class DisconnectMonitor(threading.local):
    """Cancels the tasks of requests whose clients leave, per thread: `begin` with each request, `end` with its response."""

    def __init__(self) -> None:
        self._young: dict[Watched, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False

    def begin(self, receive: Receive) -> Watched:
        """Watch the current task's request, whose body has been read."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        if loop is not self._loop:  # requests of the thread's previous loop (a test's) are over
            self._loop, self._young, self._ticking = loop, {}, False
        if not self._ticking:
            self._ticking = True
            loop.call_later(INTERVAL, self._tick, loop)
        watched = Watched(receive, task, loop.time())
        self._young[watched] = None
        return watched

    def end(self, watched: Watched) -> None:
        """End watching: the response has been sent."""
        self._young.pop(watched, None)
        if watched.watcher is not None:
            watched.watcher.cancel()
        if watched.gone:
            watched.task.uncancel()  # it goes on to end its request

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        old = loop.time() - INTERVAL
        for watched in list(self._young):
            if watched.since > old:
                break
            del self._young[watched]
            watched.watch(loop)
        self._ticking = bool(self._young)
        if self._ticking:
            loop.call_later(INTERVAL, self._tick, loop)
