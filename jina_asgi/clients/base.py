"""What the synchronous and the asynchronous Client have in common: their server, and a connection on each event loop."""

from __future__ import annotations

import asyncio
import threading
from itertools import islice
from typing import Any

from jina_asgi.clients.address import Address
from jina_asgi.clients.connection import Connection
from jina_asgi.clients.inputs import batches
from jina_asgi.excepts import BadClientInput
from jina_asgi.settings import ClientSettings


class BaseClient:
    """A server's address, and how far requests may run ahead of their answers."""

    def __init__(self, address: Address, settings: ClientSettings, *, prefetch: int = 1000, app: Any = None) -> None:
        if prefetch < 1:
            raise BadClientInput(f"prefetch={prefetch}: expected at least 1, the number of requests open at once")
        self.address, self._settings, self._prefetch, self._app = address, settings, prefetch, app
        self._connections: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._lock = threading.Lock()

    @staticmethod
    def check_input(inputs: Any) -> None:
        """Read the first document of `inputs`, and say what is wrong with it.

        Raises:
            BadClientInput: it is none.
        """
        for _ in islice(batches(inputs, 1), 1):
            return

    def _connection(self, loop: asyncio.AbstractEventLoop) -> Connection:
        """The connection on a loop. Those of loops that are closed have ended with them."""
        with self._lock:  # threads may share a Client, and each connection has to be closed
            found = self._connections.get(loop)
            if found is None:
                for other in [other for other in self._connections if other.is_closed()]:
                    del self._connections[other]
                found = Connection(self.address, self._settings, self._app)
                self._connections[loop] = found
            return found

    def _ahead(self, prefetch: int | None) -> int:
        if prefetch is not None and prefetch < 1:
            raise BadClientInput(f"prefetch={prefetch}: expected at least 1, the number of requests open at once")
        return prefetch or self._prefetch
