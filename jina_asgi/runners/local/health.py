"""Asks an Executor for its own `health` once a second while it is served, and keeps the answer for readiness checks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from jina_asgi.concurrency.forks import end_if_forked
from jina_asgi.concurrency.health_signal import health_signal
from jina_asgi.concurrency.hooks import maybe_await
from jina_asgi.concurrency.tasks import concurrent_tasks, log_failure, mark_retrieved, start_task
from jina_asgi.concurrency.timeouts import any_done
from jina_asgi.errors._raised import future_safe, raised_class, sanitized
from jina_asgi.errors.load_failure import LoadFailure
from jina_asgi.executors.decorator import recorded
from jina_asgi.executors.executor import Executor
from jina_asgi.settings.jina_mode import as_jina

logger = logging.getLogger("jina_asgi")

_LIMIT = 1.0  # seconds in which `health` has to answer
_PAUSE = 1.0  # seconds from one answer to the next question


class HealthWatch:
    """Watches whether one Executor can answer, by its own `health`.

    A sync `health` runs in a daemon thread, an async one on the loop. One that does not answer within a second counts as
    ill, and is not called again before that call has returned. Time in which this process did not run does not count.

    Attributes:
        unhealthy_reason: why the Executor cannot answer, in words for a client; empty where it can, or has no `health` of its own.
    """

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor, self._name = executor, name
        self.unhealthy_reason = ""
        self._logged = ("", "")  # the class of the error that `health` raises, and its message for clients
        self._thread: asyncio.Future[Any] | None = None  # of a call whose answer has not been read
        self._watching: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Check once, then once a second until `ending` is called."""
        if _is_own(type(self._executor)):
            await self.look()
            self._watching = start_task(self._watch(), log_failure(f"asking {self._name} for its health"))

    def ending(self) -> asyncio.Future[Any] | None:
        """Stop checking; return a future to await before the Executor is closed, None if there is none."""
        if self._watching is None:
            return None
        self._watching.cancel()
        return start_task(self._ended(self._watching), mark_retrieved)

    async def look(self) -> None:
        """Ask once, or wait again for an answer that was late; `unhealthy_reason` has the outcome."""
        is_late = self._thread is not None
        async with concurrent_tasks(self._answer()) as asking:
            if not await any_done(asking, _LIMIT):
                self.unhealthy_reason = f"{self._name}: its health() takes longer than {_LIMIT:g} s"
                return
            error = asking[0].exception()
            try:
                if error is not None:
                    self._raised(error)
                    return
            finally:
                del error  # its traceback may reference this frame
            self._logged = ("", "")
            if not asking[0].result():
                self.unhealthy_reason = f"{self._name} says that it is not healthy"
            elif not is_late:
                self.unhealthy_reason = ""

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            before = self.unhealthy_reason
            await self.look()
            if self.unhealthy_reason != before:
                health_signal.notify()

    async def _ended(self, watching: asyncio.Task[None]) -> None:
        await asyncio.wait([watching])
        if self._thread is not None:
            await asyncio.wait([self._thread])

    async def _answer(self) -> bool:
        if self._thread is None:
            self._thread = _in_thread(self._executor)
        await asyncio.wait([self._thread])
        thread, self._thread = self._thread, None
        try:
            answer = thread.result()
            return answer if isinstance(answer, bool) else await maybe_await(_truth_of(answer))
        finally:
            del thread  # it references the error whose traceback references this frame

    def _raised(self, error: BaseException) -> None:
        """Log what `health` raised, once for each class until it answers again: it is asked every second."""
        if self._logged[0] != raised_class(error):
            failure = LoadFailure.logged(error, f"{self._name}: its health() failed")
            self._logged = raised_class(error), f"{self._name}: its health() failed {failure}"
        self.unhealthy_reason = self._logged[1]


def _is_own(cls: type[Executor]) -> bool:
    """Whether `health` is a hook that the class overrides. Jina has none: there, a method that takes arguments is no hook."""
    method = cls.health
    if method is Executor.health or recorded(method):
        return False
    needed = [p for p in [*inspect.signature(method).parameters.values()][1:] if p.default is p.empty]
    return not (as_jina() and any(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in needed))


def _in_thread(executor: Executor) -> asyncio.Future[Any]:
    """Call `health` in a thread of its own; the future has True, False, or an awaitable of one."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    thread = threading.Thread(target=_call, args=(executor, loop, future), name="jina-asgi-health", daemon=True)
    thread.start()
    return future


def _call(executor: Executor, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
    answer, raised, process = None, None, os.getpid()
    try:
        answer = executor.health()
        answer = answer if inspect.isawaitable(answer) else bool(answer)
    except BaseException as error:  # noqa: BLE001  # also SystemExit: it is the answer
        raised = future_safe(sanitized(error))
    end_if_forked(process, raised)
    try:
        with suppress(RuntimeError):  # the loop is closed: no caller waits
            loop.call_soon_threadsafe(_settle, future, answer, raised)
    finally:
        del raised, future  # the error's traceback references this frame


def _settle(future: asyncio.Future[Any], answer: Any, raised: BaseException | None) -> None:
    if raised is None:
        future.set_result(answer)
    else:
        future.set_exception(raised)


async def _truth_of(answer: Awaitable[Any]) -> bool:
    return bool(await answer)
