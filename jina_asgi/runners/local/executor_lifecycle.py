"""The lifecycle of one Executor: constructed, warmed up, closed.

Its synchronous methods run in its own threads, asynchronous ones on the event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jina_asgi.concurrency.hooks import maybe_await
from jina_asgi.errors._raised import loggable
from jina_asgi.executors.decorator import recorded
from jina_asgi.executors.executor import Executor
from jina_asgi.runners.local.threads import ExecutorThreads, LeftBehind
from jina_asgi.settings.jina_mode import as_jina

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
