"""`@monitor` and `self.monitor(name)`: how often a part of an Executor ran, and how long that took."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar, overload

from jina_asgi.errors._shown import said

F = TypeVar("F", bound=Callable[..., Any])
_KEY = "__jina_asgi_timings__"
_MOST, _OTHERS = 1000, "(others)"  # names that are counted by themselves, and what all beyond are counted as


class _Timings:
    """What one Executor has counted; its threads may add to it at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.figures: dict[str, dict[str, Any]] = {}

    def add(self, name: str, took: float, documentation: str | None) -> None:
        with self.lock:
            if name not in self.figures and len(self.figures) >= _MOST:
                name = _OTHERS
            before = self.figures.get(name) or {"count": 0, "seconds": 0.0, "longest": 0.0}
            self.figures[name] = {
                **before,
                "count": before["count"] + 1,
                "seconds": before["seconds"] + took,
                "longest": max(before["longest"], took),
                **({"documentation": said(documentation)} if documentation else {}),
            }


@contextmanager
def timed(executor: object, name: str, documentation: str | None = None) -> Iterator[None]:
    """Count what runs inside among an Executor's figures, whether it ends well or not."""
    timings: _Timings = vars(executor).setdefault(_KEY, _Timings())
    name = said(name)
    start = time.perf_counter()
    try:
        yield
    finally:
        timings.add(name, time.perf_counter() - start, documentation)


def figures(executor: object | None) -> dict[str, Any]:
    """What an Executor has counted, by name: how often, the seconds of all together, and of the longest."""
    timings: _Timings | None = None if executor is None else vars(executor).get(_KEY)
    if timings is None:
        return {}
    with timings.lock:
        return dict(timings.figures)


@overload
def monitor(function: F, /) -> F: ...
@overload
def monitor(*, name: str | None = None, documentation: str | None = None) -> Callable[[F], F]: ...
def monitor(
    function: F | None = None, /, *, name: str | None = None, documentation: str | None = None
) -> F | Callable[[F], F]:
    """Time a method of an Executor; above or below `@requests`. A stream's time is from its first step to its end.

    Args:
        name: what its figures are called, as in Jina: by default `<method>_seconds`.
        documentation: what stands beside them.
    """

    def watched(method: F) -> F:
        made: F = _watched(method, name or f"{method.__name__}_seconds", documentation)
        return made

    return watched if function is None else watched(function)


def _watched(method: Any, name: str, documentation: str | None) -> Any:
    """A method of the same kind, which the Executor's figures count."""

    @functools.wraps(method)
    async def stream(self: Any, *arguments: Any, **named: Any) -> Any:
        with self.monitor(name, documentation):
            async with aclosing(method(self, *arguments, **named)) as steps:
                async for step in steps:
                    yield step

    @functools.wraps(method)
    def generator(self: Any, *arguments: Any, **named: Any) -> Any:
        with self.monitor(name, documentation):
            return (yield from method(self, *arguments, **named))

    @functools.wraps(method)
    async def coroutine(self: Any, *arguments: Any, **named: Any) -> Any:
        with self.monitor(name, documentation):
            return await method(self, *arguments, **named)

    @functools.wraps(method)
    def function(self: Any, *arguments: Any, **named: Any) -> Any:
        with self.monitor(name, documentation):
            return method(self, *arguments, **named)

    if inspect.isasyncgenfunction(method):
        return stream
    if inspect.isgeneratorfunction(method):
        return generator
    return coroutine if inspect.iscoroutinefunction(method) else function
