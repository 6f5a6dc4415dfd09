"""The base of the synchronous and the asynchronous Client: the server's address, and a session for each event loop."""

from __future__ import annotations

import asyncio
import threading
from itertools import islice
from typing import Any

from jina_asgi.clients.address import Address
from jina_asgi.clients.connection import ClientSession
from jina_asgi.clients.inputs import batches
from jina_asgi.excepts import BadClientInput
from jina_asgi.settings import ClientSettings


class BaseClient:
    """A Client's server, and the limit of requests that are open at the same time."""

    def __init__(self, address: Address, settings: ClientSettings, *, prefetch: int = 1000, app: Any = None) -> None:
        if prefetch < 1:
            raise BadClientInput(f"prefetch={prefetch}: expected at least 1, the number of requests open at once")
        self.address, self._settings, self._prefetch, self._app = address, settings, prefetch, app
        self._connections: dict[asyncio.AbstractEventLoop, ClientSession] = {}
        self._lock = threading.Lock()

    @staticmethod
    def check_input(inputs: Any) -> None:
        """Reads the first document of `inputs` to check it.

        Raises:
            BadClientInput: the inputs are invalid.
        """
        for _ in islice(batches(inputs, 1), 1):
            return

    def _connection(self, loop: asyncio.AbstractEventLoop) -> ClientSession:
        """The session of an event loop, made on first use; sessions of closed loops are dropped."""
        with self._lock:  # threads may share a Client, and every session has to be closed
            found = self._connections.get(loop)
            if found is None:
                for other in [other for other in self._connections if other.is_closed()]:
                    del self._connections[other]
                found = ClientSession(self.address, self._settings, self._app)
                self._connections[loop] = found
            return found

    def _ahead(self, prefetch: int | None) -> int:
        if prefetch is not None and prefetch < 1:
            raise BadClientInput(f"prefetch={prefetch}: expected at least 1, the number of requests open at once")
        return prefetch or self._prefetch
