"""Passes a Unix socket's path from one server to the next without a moment in which no server listens.

gRPC removes any file at a path before it listens there, and removes the path when it stops, even if another server listens
there by then: the new worker after a reload. So gRPC listens under a temporary name, which is moved to the path.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jina_asgi.errors import DefinitionError


class SocketPath:
    """The path of one server.

    Raises:
        DefinitionError: there is a file that is not a socket.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._own = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        self._made: tuple[int, int, int] | None = None
        found = _found(self._path)
        if found is not None and not stat.S_ISSOCK(found.st_mode):
            raise DefinitionError(
                f"cannot listen on unix:{path}: expected a socket there or nothing, found another file"
            )

    @property
    def target(self) -> str:
        """The address for gRPC."""
        return f"unix:{self._own}"

    def publish(self) -> None:
        """Move the listening socket to the path, in place of the server that listened there.

        Raises:
            DefinitionError: that is not allowed.
        """
        try:
            self._own.replace(self._path)
            self._made = _identity(self._path.lstat())
        except OSError as error:
            raise DefinitionError(f"cannot listen on unix:{self._path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the path, if it is still this server's."""
        found = _found(self._path)
        if found is not None and self._made == _identity(found):
            self._path.unlink()


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_mtime_ns  # the inode number of a removed file is soon reused


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
