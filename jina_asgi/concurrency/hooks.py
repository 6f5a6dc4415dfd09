"""Functions and methods that users hand over: whether one is async, and how one of either kind is called."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from jina_asgi.concurrency.tasks import is_cancel
from jina_asgi.errors._raised import leave


def is_async(function: Any) -> bool:
    """Whether calling this gives a coroutine, or an async generator: a function, a method, a partial, an object."""
    while isinstance(function, functools.partial):
        function = function.func
    candidates = (function, getattr(type(function), "__call__", None))  # noqa: B004  # its own, to look at it
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in candidates)


def is_generator(function: Any) -> bool:
    """Whether this yields: nothing of it runs when it is called."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


async def settled(value: Any) -> Any:
    """What a user's function answered: awaited, where it was an async one.

    Raises:
        RuntimeError: in place of an exception that would end the loop.
    """
    try:
        return await value if inspect.isawaitable(value) else value
    except BaseException as error:
        if is_cancel(error):
            raise
        leave(error)


def as_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """An async function as it is; a sync one called in a thread, so that the loop does not wait for what it looks up."""
    if is_async(function):
        return function

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:  # noqa: BLE001
            leave(error)

    @functools.wraps(function, updated=())
    async def in_thread(*arguments: Any) -> Any:
        return await settled(await asyncio.to_thread(call, *arguments))

    return in_thread
