"""Lists the sockets that this process listens on, as gRPC reports neither which are its own nor that one is closed.

The list is empty where the system does not show a process its open files.
"""

from __future__ import annotations

import os
import socket
import stat

#: A descriptor, and its socket's number: the descriptor alone may be reused.
Listening = frozenset[tuple[int, int]]


def listening(port: int | None = None) -> Listening:
    """The listening sockets of this process; with a port, those on it."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return frozenset()
    found = ((number, _socket_at(number, port)) for number in map(int, names))
    return frozenset((number, identity) for number, identity in found if identity is not None)


def listens(known: Listening) -> bool:
    """Whether all of these are still open, and listen."""
    return all(_socket_at(number) == identity for number, identity in known)


def _socket_at(number: int, port: int | None = None) -> int | None:
    """The socket of a descriptor; None: it does not listen on this port, or is not a socket."""
    try:
        found = os.fstat(number)
        if not stat.S_ISSOCK(found.st_mode):
            return None
        seen = socket.socket(fileno=number)
        try:
            wanted = port is None or seen.getsockname()[1] == port
            return found.st_ino if wanted and seen.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else None
        finally:
            seen.detach()
    except (OSError, IndexError):  # it was closed meanwhile; or is not an internet socket
        return None
