"""Large requests are read beside the event loop, which would answer nobody meanwhile: 60 MB can take seconds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes from which on a request is large: less is read within a tenth of a second, whatever is in it.
LARGE = 2**20


async def beside(read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Read something large in this process's one thread for that: whoever sends many such waits for his own."""
    work = copy_context().run
    return await asyncio.get_running_loop().run_in_executor(_thread(os.getpid()), lambda: work(read, *args, **kwargs))


@lru_cache(maxsize=1)
def _thread(_process: int) -> ThreadPoolExecutor:  # a fork leaves threads behind
    return ThreadPoolExecutor(1, "jina-asgi-reads")
