"""How servers announce the end of this process, and what every application in it does then.

uvicorn announces it by the lifespan only, after all connections have closed, and without a lifespan ends by its signal at
once: so this module extends uvicorn's shutdown.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import weakref
from typing import Any

from jina_asgi.serving.service_group import Member

logger = logging.getLogger("jina_asgi")

#: Seconds for open calls if a server ends because code has changed.
_RELOADS = 0.5


_SERVICES: weakref.WeakSet[Member] = weakref.WeakSet()
_joined: weakref.WeakSet[Any] = weakref.WeakSet()


def ends_with_process(service: Member) -> None:
    """Register a service that ends with the process."""
    _SERVICES.add(service)


def announce_end() -> None:
    """Announce that this process is about to end: its applications report that they are not ready, and load nothing more."""
    for service in list(_SERVICES):
        service.announce()


def end_now() -> None:
    """End all open calls of this process now, with an error for their callers."""
    for service in list(_SERVICES):
        service.hurry()


def close_alone() -> None:
    """End all models that were loaded without a lifespan, after their open calls."""
    for service in list(_SERVICES):
        service.close()


def join_server() -> None:
    """Extend the shutdown of the uvicorn in this process's main thread, if there is one: it handles SIGTERM.

    With `--reload` open streams end, as they would delay the new code. Models that were loaded without a lifespan are closed
    after the last connection.
    """
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    uvicorn = sys.modules.get("uvicorn.server")
    if uvicorn is None or not isinstance(server, uvicorn.Server) or server in _joined:
        return
    _joined.add(server)
    shutdown = server.shutdown

    async def joined(sockets: Any = None) -> None:
        ending: asyncio.TimerHandle | None = None
        if server.config.should_reload:
            announce_end()
            ending = asyncio.get_running_loop().call_later(_RELOADS, end_now)
        try:
            await shutdown(sockets=sockets)
        finally:
            if ending is not None:
                ending.cancel()
            if not server.force_exit:
                await asyncio.to_thread(close_alone)

    server.shutdown = joined
