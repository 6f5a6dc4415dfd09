"""The lifecycle of one Executor: constructed, warmed up, closed.

Its synchronous methods run in its own threads, asynchronous ones on the event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jina_asgi.concurrency.lifecycle import health_signal
from jina_asgi.concurrency.process_wide import end_if_forked
from jina_asgi.concurrency.task_groups import maybe_await
from jina_asgi.concurrency.tasks import any_done, concurrent_tasks, log_failure, mark_retrieved, start_task
from jina_asgi.errors._raised import future_safe, loggable, raised_class, sanitized
from jina_asgi.errors.load_failure import LoadFailure
from jina_asgi.executors.decorators import recorded
from jina_asgi.executors.executor import Executor
from jina_asgi.runners.local.threads import ExecutorThreads, LeftBehind
from jina_asgi.settings import AROUND, DeploymentSettings
from jina_asgi.settings.jina_options import as_jina

logger = logging.getLogger("jina_asgi")

_FAILED = "%s.close() failed, of an Executor that did not begin to serve"


async def load_executor(make: Callable[[], Executor], threads: ExecutorThreads) -> Executor:
    """Construct an Executor and warm it up; close it again if that fails or the caller leaves meanwhile.

    Raises:
        Any error of its constructor or `warmup`.
    """
    loop = asyncio.get_running_loop()

    def load() -> tuple[Executor, Any]:
        with _current(loop):
            executor = make()
        try:
            return executor, _hook(executor, "warmup")()
        except BaseException:
            _close_unserved(executor, loop)
            raise

    def undo(loaded: tuple[Executor, Any]) -> None:
        executor, warming = loaded
        if inspect.iscoroutine(warming):
            warming.close()
        _close_unserved(executor, loop)

    executor, warming = await threads.run(load, undo=undo)
    threads.has_loaded = True
    try:
        await maybe_await(warming)
    except BaseException:
        await threads.finish(lambda: _close_unserved(executor, loop))
        raise
    return executor


async def close_executor(executor: Executor, threads: ExecutorThreads) -> None:
    """Close an Executor.

    Raises:
        Any error of its `close`.
    """
    with suppress(LeftBehind):  # then a thread is stuck, and the log says that the Executor is not closed
        await maybe_await(await threads.finish(lambda: _hook(executor, "close")()))


def _hook(executor: Executor, name: str) -> Callable[[], Any]:
    """Return the hook `warmup` or `close`; a no-op if the method is an endpoint, or takes arguments in a program for Jina.

    Jina has no `warmup`, so that a method of this name may do anything.
    """
    method = getattr(type(executor), name)
    required = [p for p in [*inspect.signature(method).parameters.values()][1:] if p.default is p.empty]
    positional = [p for p in required if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if recorded(method) or (name == "warmup" and as_jina() and positional):
        return lambda: None
    return getattr(executor, name)  # type: ignore[no-any-return]  # one of the two


@contextmanager
def _current(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Set the event loop that a program written for Jina expects from `asyncio.get_event_loop()`."""
    if not as_jina():
        yield
        return
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)


def _close_unserved(executor: Executor, loop: asyncio.AbstractEventLoop) -> None:
    """Close, from its thread, an Executor that will not be served; the loop awaits an async `close`."""
    try:
        closing = _hook(executor, "close")()
        if closing is not None:
            asyncio.run_coroutine_threadsafe(_closed(closing, executor), loop)
    except BaseException as error:
        logger.error(_FAILED, type(executor).__name__, exc_info=loggable(error))


async def _closed(closing: Any, executor: Executor) -> None:
    try:
        await maybe_await(closing)
    except Exception as error:
        logger.error(_FAILED, type(executor).__name__, exc_info=loggable(error))


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


def runtime_args(settings: DeploymentSettings, replica: int) -> dict[str, Any]:
    """Return the runtime arguments under Jina's names; in a program for Jina with its values of `name` and `shard_id`, too."""
    facts: dict[str, Any] = {
        "name": settings.name,
        "workspace": settings.workspace,
        "shard_id": settings.shard_id,
        "shards": settings.shards,
        "replicas": settings.replicas,
        "allow_concurrent": settings.allow_concurrent,
    }
    if not as_jina():
        return facts
    name = settings.name.removesuffix(f"-shard-{settings.shard_id}")
    shard = f"/shard-{settings.shard_id}" if settings.shards > 1 else ""
    own = f"{name}{shard}/rep-{replica}"
    for part in AROUND:  # which has no replicas
        own = f"{name.removesuffix(f'-{part}')}/{part}-0" if name.endswith(f"-{part}") else own
    return {**facts, "name": own, "shard_id": max(settings.shard_id, 0)}
