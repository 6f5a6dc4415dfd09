"""How web workers come to one pool host: whoever finds none starts it, under a lock; the others connect."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jina_asgi.concurrency.tasks import beside
from jina_asgi.concurrency.timeouts import any_done
from jina_asgi.errors import NotReady
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.devices import environment_of_shared
from jina_asgi.processes.handshake import Ask
from jina_asgi.processes.spawning import OUR_MODULE

logger = logging.getLogger("jina_asgi")

#: How many connections may wait to be taken.
BACKLOG = 1024
_INHERITED = 3  # the descriptor that a host listens on
_started: list[int] = []
_PATIENCE = 5.0  # seconds for a host to say how it is
_STARTING = 30.0  # seconds from a host's start to its first word, and for another to start one
_AGAIN = 0.05  # seconds after which a lock is tried again
_PEER = struct.Struct("3i")  # pid, uid, gid


def connect(instance: server_instance.Instance) -> socket.socket:
    """A connection to the host of an instance, which is started where there is none. Blocks for some milliseconds.

    The socket listens before the host is started: who comes meanwhile waits in its backlog.

    Raises:
        NotReady, DefinitionError: there is no folder for the socket, or nothing can listen there.
    """
    _take_note()
    folder = server_instance.folder(instance.key)
    path = folder / "socket"
    found = _connected(path)
    if found is None:
        with _locked(folder / "lock"):
            found = _connected(path)
            if found is None:
                _start(path, instance)
                found = _connected(path)
    if found is None:
        raise NotReady(f"the pool host at {path} ended at once; the log has the cause")
    return found


def end(instance: server_instance.Instance, pid: int) -> None:
    """Kill the host of an instance that hangs, unless another has taken its place; its replicas end with it.

    Whoever comes next starts another.

    Raises:
        NotReady: another process has been starting a host for too long.
    """
    folder = server_instance.folder(instance.key)
    with _locked(folder / "lock"):
        found, start = server_instance.keeper(folder) or (0, 0)
        if found == pid and server_instance.alive(pid, start or None):
            (folder / "socket").unlink(missing_ok=True)
            os.kill(pid, signal.SIGKILL)


async def silent(instance: server_instance.Instance, heartbeat: float) -> int:
    """Ask the host of an instance how it is, again and again; its pid, once it gives no sign of life for so many seconds.

    One that has just been started has longer for its first.
    """
    folder = server_instance.folder(instance.key)
    while True:
        connection = _connected(folder / "socket")
        if connection is not None:  # else the one who waits for it has lost its connection
            with connection:
                connection.setblocking(False)
                pid, _ = server_instance.keeper(folder) or (0, 0)
                async with beside(_heard(connection)) as asking:
                    if not await any_done(
                        asking, heartbeat if _listens(connection, pid) else max(heartbeat, _STARTING)
                    ):
                        return pid
        await asyncio.sleep(heartbeat / 2)


async def _heard(connection: socket.socket) -> None:
    """Return once a host says something, or is gone."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        await loop.sock_sendall(connection, Ask(ask="status").dumps())
        await loop.sock_recv(connection, 1)


def _listens(connection: socket.socket, pid: int) -> bool:
    """Whether a process had begun to serve when this connection to it was made: it listens anew then, in its own name."""
    peer: int = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
    return peer == pid


def status(path: Path, patience: float = _PATIENCE) -> dict[str, Any] | None:
    """What the host at a socket says of itself; None: there is none any more.

    Raises:
        NotReady: it gives no answer within `patience` seconds.
    """
    connection = _connected(path)
    if connection is None:
        return None
    with connection:
        connection.settimeout(patience)
        try:
            connection.sendall(Ask(ask="status").dumps())
            raw = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except TimeoutError as error:
            pid, _ = server_instance.keeper(path.parent) or (0, 0)
            raise NotReady(f"pool host {pid} at {path.parent} gives no answer within {patience:g} s") from error
        except ConnectionError:
            return None
    found: dict[str, Any] | None = json.loads(raw) if raw else None  # nothing is said by one that is ending
    return found


def _connected(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)  # where too many wait to be taken, waiting with them would have no end
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise NotReady(f"cannot connect to the pool host at {path}: {error.strerror}") from error
    connection.setblocking(True)
    return connection


def _start(path: Path, instance: server_instance.Instance) -> None:
    """Start a host that listens at a path.

    Raises:
        NotReady: it cannot be started.
    """
    try:
        pid = _spawned(path, instance)
        _started.append(pid)
        server_instance.keeps(path.parent, pid)
    except OSError as error:
        raise NotReady(f"the pool host at {path} cannot be started: {error.strerror}") from error


def _spawned(path: Path, instance: server_instance.Instance) -> int:
    path.unlink(missing_ok=True)  # what a host left that was killed
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        listening.bind(str(path))
        path.chmod(0o600)  # its folder lets nobody else in either
        listening.listen(BACKLOG)
        words = [str(_INHERITED), instance.key, str(instance.pid or 0), str(instance.started or 0)]
        # Not `subprocess`: a host outlives whoever started it, and nobody here waits for it.
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *OUR_MODULE, "jina_asgi.serving.programs.pool_host", *words],
            _environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, listening.fileno(), _INHERITED),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
            ],
            setsid=True,
        )


def _inheritable() -> list[int]:
    """What a host would keep open of ours: hypercorn's worker has a pipe by whose end its master knows that it ended."""
    found = list[int]()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if descriptor > _INHERITED and os.get_inheritable(descriptor):
                found.append(descriptor)
        except OSError:
            pass  # this listing's own
    return found


def _take_note() -> None:
    """Let the system forget the hosts that this process had started and that have ended."""
    for pid in list(_started):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # whoever waits for all children was quicker
            ended = pid
        if ended:
            _started.remove(pid)


def _environment() -> dict[str, str]:
    ours = str(Path(__file__).parents[2])
    return {
        **environment_of_shared(os.environ),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), ours])),
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    """Wait for a lock; as the system's own waiting has no limit, and a process that is stopped may have it, by trying."""
    deadline = time.monotonic() + _STARTING
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise NotReady(f"another process has had {path} for {_STARTING:g} s; it is stopped, or hangs") from None
            time.sleep(_AGAIN)
        else:
            return
