"""Shows the metrics of a server at a port of their own, as Jina does, in one of its processes at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server

from jina_asgi.observability.figure_file import Sums
from jina_asgi.observability.prometheus import FigureCollector
from jina_asgi.observability.switch import SWITCH

logger = logging.getLogger("jina_asgi")


class OwnPort:
    """The port, in the process that has it; when that process ends, the next one to `look` takes it.

    Args:
        port: 0: a free one.
        read: returns the figures of the server.
    """

    def __init__(self, port: int, read: Callable[[], Sums]) -> None:
        self._port = port
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(FigureCollector(read))
        self._lock: int | None = None
        self._stop: Callable[[], None] | None = None
        self._failed = False

    def look(self) -> None:
        """Serve, unless this process does already, or another one of the server."""
        if self._stop is not None or not SWITCH.folder or not self._try_lock():
            return
        try:
            server, thread = start_http_server(self._port, "127.0.0.1", self._registry)
        except OSError as error:
            if not self._failed:
                logger.error("the metrics cannot be shown at port %d: %s", self._port, error.strerror)
            self._failed = True
            return

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop
        logger.info("the metrics are at http://127.0.0.1:%d", server.server_port)

    def close(self) -> None:
        """End serving."""
        if self._stop is not None:
            self._stop()
        if self._lock is not None:
            os.close(self._lock)

    def _try_lock(self) -> bool:
        if self._lock is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(f"{SWITCH.folder}/port-{self._port}", flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
