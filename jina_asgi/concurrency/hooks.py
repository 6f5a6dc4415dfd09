"""Calls hooks that users pass in, synchronous or asynchronous."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.errors._raised import raise_sanitized


def is_async(function: Any) -> bool:
    """Whether calling it returns a coroutine or an async generator; takes functions, methods, partials and callables."""
    while isinstance(function, functools.partial):
        function = function.func
    candidates = (function, getattr(type(function), "__call__", None))  # noqa: B004  # inspected, not called
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in candidates)


def is_generator(function: Any) -> bool:
    """Whether it is a generator function, whose body does not run when it is called."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


async def maybe_await(value: Any) -> Any:
    """Return the value of a user's function, awaited if it is awaitable.

    Raises:
        RuntimeError: in place of an exception that would end the loop.
    """
    try:
        return await value if inspect.isawaitable(value) else value
    except BaseException as error:
        if is_cancel(error):
            raise
        raise_sanitized(error)


def as_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return an async function as it is, and a sync one as an async function that runs in a thread."""
    if is_async(function):
        return function

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:  # noqa: BLE001
            raise_sanitized(error)

    @functools.wraps(function, updated=())
    async def in_thread(*arguments: Any) -> Any:
        return await maybe_await(await asyncio.to_thread(call, *arguments))

    return in_thread
