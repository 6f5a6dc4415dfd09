"""`@requests`, which records the endpoints that methods answer, and `@monitor`, which counts and times a part of an Executor."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar, overload

from jina_asgi.errors import DefinitionError
from jina_asgi.errors._shown import safe_str
from jina_asgi.observability.switch import SWITCH

F = TypeVar("F", bound=Callable[..., Any])
_RECORD = "__jina_asgi_requests__"


@overload
def requests(function: F, /) -> F: ...
@overload
def requests(
    *,
    on: str | Sequence[str] | None = None,
    idempotent: bool = False,
    request_schema: Any = None,
    response_schema: Any = None,
) -> Callable[[F], F]: ...
def requests(
    function: F | None = None,
    /,
    *,
    on: str | Sequence[str] | None = None,
    idempotent: bool = False,
    request_schema: Any = None,
    response_schema: Any = None,
) -> F | Callable[[F], F]:
    """Marks a method of an Executor as answering endpoints.

    Bare, or without `on`, the method answers '/default': what is sent there, to `/post`, and (other than over
    HTTP) to endpoints that nothing else answers. The method itself is returned unchanged.

    Args:
        on: one endpoint or several, such as '/encode'.
        idempotent: the work may be run again when a replica died or a batch failed.
        request_schema, response_schema: the documents, in place of the annotations (as in Jina).
    """
    if function is not None and not (callable(function) or isinstance(function, classmethod)):
        raise DefinitionError(f"@requests({function!r}): expected @requests(on={function!r}), or @requests alone")
    if on is not None and (not isinstance(on, str | Sequence) or len(on) == 0):
        raise DefinitionError(f"@requests(on={on!r}): expected an endpoint such as '/encode', or a list of them")
    names = ("/default",) if on is None else (on,) if isinstance(on, str) else tuple(on)

    def record(method: F) -> F:
        if not (inspect.isfunction(method) or isinstance(method, staticmethod | classmethod)):
            raise DefinitionError(f"@requests decorates {method!r}: expected a method written with def")
        marked = getattr(method, "__func__", method)  # a static method is rejected with its class, by name
        if hasattr(marked, _RECORD):
            raise DefinitionError(
                f"@requests is used twice on {method.__qualname__}; expected one: on=['/one', '/two']"
            )
        setattr(marked, _RECORD, Record(names, idempotent, request_schema, response_schema))
        return method

    return record if function is None else record(function)


class Record:
    """The arguments of `@requests`."""

    __slots__ = ("idempotent", "names", "request_schema", "response_schema")

    def __init__(self, names: tuple[str, ...], idempotent: bool, request_schema: Any, response_schema: Any) -> None:
        self.names, self.idempotent = names, idempotent
        self.request_schema, self.response_schema = request_schema, response_schema


def recorded(method: Any) -> Record | None:
    """The recorded arguments of `@requests` of a method; None if it has no such decorator."""
    record: Record | None = getattr(getattr(method, "__func__", method), _RECORD, None)
    return record


_KEY = "__jina_asgi_timings__"
_MOST, _OTHERS = 1000, "(others)"  # how many names are counted separately, and the name for all others


class _Timings:
    """The timings of one Executor; thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.timings: dict[str, dict[str, Any]] = {}

    def add(self, name: str, took: float, documentation: str | None) -> str:
        """Add one; returns the name that it is counted under."""
        with self.lock:
            if name not in self.timings and len(self.timings) >= _MOST:
                name = _OTHERS
            before = self.timings.get(name) or {"count": 0, "seconds": 0.0, "longest": 0.0}
            self.timings[name] = {
                **before,
                "count": before["count"] + 1,
                "seconds": before["seconds"] + took,
                "longest": max(before["longest"], took),
                **({"documentation": safe_str(documentation)} if documentation else {}),
            }
        return name


@contextmanager
def timed(executor: object, name: str, documentation: str | None = None) -> Iterator[None]:
    """Times its block in an Executor's metrics, whether it succeeds or fails."""
    timings: _Timings = vars(executor).setdefault(_KEY, _Timings())
    name = safe_str(name)
    start = time.perf_counter()
    try:
        yield
    finally:
        took = time.perf_counter() - start
        name = timings.add(name, took, documentation)
        if SWITCH.monitored is not None:
            SWITCH.monitored(_runtime_name(executor), name, safe_str(documentation or ""), took)


def _runtime_name(executor: Any) -> str:
    return getattr(executor.runtime_args, "name", None) or str(executor.metas.name)


def timings(executor: object | None) -> dict[str, Any]:
    """The timings of an Executor by name: count, total seconds and the longest run in seconds."""
    timings: _Timings | None = None if executor is None else vars(executor).get(_KEY)
    if timings is None:
        return {}
    with timings.lock:
        return dict(timings.timings)


@overload
def monitor(function: F, /) -> F: ...
@overload
def monitor(*, name: str | None = None, documentation: str | None = None) -> Callable[[F], F]: ...
def monitor(
    function: F | None = None, /, *, name: str | None = None, documentation: str | None = None
) -> F | Callable[[F], F]:
    """Times a method of an Executor; above or below `@requests`. A stream is timed from its first step to its end.

    Args:
        name: the name of the metric, as in Jina: by default `<method>_seconds`.
        documentation: the description of the metric.
    """

    def record(method: F) -> F:
        made: F = _timed_method(method, name or f"{method.__name__}_seconds", documentation)
        return made

    return record if function is None else record(function)


def _timed_method(method: Any, name: str, documentation: str | None) -> Any:
    """Wraps a method in one of the same kind that is timed."""

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
