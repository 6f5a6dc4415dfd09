"""How servers announce the end of this process, and what every application in it does then.

uvicorn announces it by the lifespan alone, once all connections have closed, and dies by its signal at once where it sends none:
so its own shutdown is joined.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import weakref
from typing import Any, Protocol

logger = logging.getLogger("jina_asgi")

#: Seconds that what runs gets where a server ends because code has changed.
_RELOADS = 0.5


class Ends(Protocol):
    """What lives in this process, and ends with it."""

    def announce(self) -> None:
        """This process is about to end."""
        ...

    def hurry(self) -> None:
        """End now, also what still runs."""
        ...

    def close(self) -> None:
        """End a life that no lifespan brought, once what runs there has finished, and wait for that."""
        ...


_HOMES: weakref.WeakSet[Ends] = weakref.WeakSet()
_joined: weakref.WeakSet[Any] = weakref.WeakSet()


def ends_with_process(home: Ends) -> None:
    """Have this end with the process."""
    _HOMES.add(home)


def announce_end() -> None:
    """This process is about to end: every application says so when asked whether it is ready, and none starts anew."""
    for home in list(_HOMES):
        home.announce()


def end_now() -> None:
    """What still runs in any application of this process ends now, with an error that its caller gets."""
    for home in list(_HOMES):
        home.hurry()


def close_alone() -> None:
    """Every life that no lifespan brought ends, once what runs there has finished."""
    for home in list(_HOMES):
        home.close()


def join_server() -> None:
    """Join the end of the uvicorn that serves in this process's main thread, if one does: it listens for SIGTERM.

    With `--reload` what is open would hold up the new code: it ends. What no lifespan brought to life is closed after
    the last connection.
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
