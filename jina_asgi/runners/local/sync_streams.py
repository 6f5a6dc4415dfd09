"""Synchronous generators of an Executor, run step by step in its threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import Any

from jina_asgi.errors._raised import loggable
from jina_asgi.runners.local.method import BoundMethod
from jina_asgi.runners.local.threads import ExecutorThreads, LeftBehind
from jina_asgi.types import Context

logger = logging.getLogger("jina_asgi")

_END: Any = object()


async def steps_in_thread(
    threads: ExecutorThreads,
    bound: BoundMethod,
    made: Generator[Any, None, None],
    context: Context,
    stopped: Callable[[], bool],
    on_left: Callable[[], object],
) -> AsyncGenerator[Any, None]:
    """Yield what `made` yields; close it at the end, and if the reader leaves.

    Leaving waits until a step that runs has returned. If serving has ended, as `stopped` says, the reader need not
    wait: the generator is closed once the step has returned.
    """
    running = threading.Lock()  # held by a step, or by what closes the generator

    def step() -> Any:
        try:
            with running:
                return bound.step(made, _END)
        finally:
            if stopped():
                close_unwaited()

    def close() -> None:
        if running.acquire(blocking=False):  # else the step that runs closes it
            try:
                made.close()
            finally:
                running.release()

    def close_unwaited() -> None:
        try:
            close()
        except BaseException as error:  # no caller waits
            logger.error("a generator could not be closed", exc_info=loggable(error))

    try:
        while (item := await threads.run(step, context, waits=lambda: not stopped(), on_left=on_left)) is not _END:
            yield item
    finally:
        if stopped():
            threads.run_unwaited(close_unwaited)
        else:
            with suppress(LeftBehind):  # then the generator never runs again
                await threads.finish(close)
