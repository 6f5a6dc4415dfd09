"""Synchronous generators of an Executor, run step by step in its threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from jina_asgi.runners.local.method import BoundMethod
from jina_asgi.runners.local.threads import ExecutorThreads, LeftBehind
from jina_asgi.types import Context

T = TypeVar("T")
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
    running = threading.Lock()  # the other threads may have the time to close a generator whose step runs
    step, close = partial(_locked, running, partial(bound.step, made, _END)), partial(_locked, running, made.close)
    try:
        while (item := await threads.run(step, context, waits=lambda: not stopped(), on_left=on_left)) is not _END:
            yield item
    finally:
        if stopped():
            threads.run_unwaited(close)
        else:
            with suppress(LeftBehind):  # then the generator never runs again
                await threads.finish(close)


def _locked(lock: threading.Lock, function: Callable[[], T]) -> T:
    with lock:
        return function()
