"""Connects web workers to one pool host: a worker that finds none starts it, under a lock; the others connect."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jina_asgi.concurrency.file_lock import lock_within
from jina_asgi.concurrency.tasks import any_done, concurrent_tasks
from jina_asgi.errors import NotReady
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.devices import environment_of_shared
from jina_asgi.processes.handshake import HostRequest
from jina_asgi.processes.replica_process import OUR_MODULE

logger = logging.getLogger("jina_asgi")

#: The most connections that may wait to be accepted.
BACKLOG = 1024
_LISTENING = 3  # the descriptor that a host listens on
_started: list[int] = []
_PATIENCE = 5.0  # seconds that a host has to answer a status request
_STARTING = 30.0  # seconds from a host's start to its first answer, and for another process to start one
_PEER = struct.Struct("3i")  # pid, uid, gid


def connect(instance: server_instance.Instance) -> socket.socket:
    """Connects to the pool host of an instance, and starts it if it does not run. Blocks for some milliseconds.

    The socket listens before the host is started: workers that connect meanwhile wait in its backlog.

    Raises:
        NotReady, DefinitionError: there is no usable folder for the socket, or the host cannot be started.
    """
    _reap()
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
    """Kills the hung host of an instance, unless another process has replaced it; its replicas end with it.

    The next worker that connects starts another host.

    Raises:
        NotReady: another process has held the lock for too long.
    """
    folder = server_instance.folder(instance.key)
    with _locked(folder / "lock"):
        found, start = server_instance.pool_host_of(folder) or (0, 0)
        if found == pid and server_instance.alive(pid, start or None):
            (folder / "socket").unlink(missing_ok=True)
            os.kill(pid, signal.SIGKILL)


async def wait_until_silent(instance: server_instance.Instance, heartbeat: float) -> int:
    """Pings the host of an instance until it is silent for `heartbeat` seconds; returns its pid then.

    A host that was just started has longer for its first answer.
    """
    folder = server_instance.folder(instance.key)
    while True:
        connection = _connected(folder / "socket")
        if connection is not None:  # else the caller, which waits for the same host, has lost its connection too
            with connection:
                connection.setblocking(False)
                pid, _ = server_instance.pool_host_of(folder) or (0, 0)
                async with concurrent_tasks(_answered(connection)) as asking:
                    if not await any_done(
                        asking, heartbeat if _listens(connection, pid) else max(heartbeat, _STARTING)
                    ):
                        return pid
        await asyncio.sleep(heartbeat / 2)


async def _answered(connection: socket.socket) -> None:
    """Returns once the host sends something, or closes the connection."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        await loop.sock_sendall(connection, HostRequest(ask="status").dumps())
        await loop.sock_recv(connection, 1)


def _listens(connection: socket.socket, pid: int) -> bool:
    """Whether the process had begun to serve when this connection was made: it calls listen() again, in its own name."""
    peer: int = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
    return peer == pid


def status(path: Path, patience: float = _PATIENCE) -> dict[str, Any] | None:
    """Fetches the status of the host at a socket; None if there is no host any more.

    Raises:
        NotReady: it does not answer within `patience` seconds.
    """
    connection = _connected(path)
    if connection is None:
        return None
    with connection:
        connection.settimeout(patience)
        try:
            connection.sendall(HostRequest(ask="status").dumps())
            raw = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except TimeoutError as error:
            pid, _ = server_instance.pool_host_of(path.parent) or (0, 0)
            raise NotReady(f"pool host {pid} at {path.parent} does not answer within {patience:g} s") from error
        except ConnectionError:
            return None
    found: dict[str, Any] | None = json.loads(raw) if raw else None  # a host that is ending answers nothing
    return found


def _connected(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)  # with a full backlog a blocking connect would never return
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
    """Starts a host that listens at a path.

    Raises:
        NotReady: it cannot be started.
    """
    try:
        pid = _spawned(path, instance)
        _started.append(pid)
        server_instance.record_pool_host(path.parent, pid)
    except OSError as error:
        raise NotReady(f"the pool host at {path} cannot be started: {error.strerror}") from error


def _spawned(path: Path, instance: server_instance.Instance) -> int:
    path.unlink(missing_ok=True)  # left by a host that was killed
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        listening.bind(str(path))
        path.chmod(0o600)  # only this user may enter its folder, too
        listening.listen(BACKLOG)
        words = [str(_LISTENING), instance.key, str(instance.pid or 0), str(instance.started or 0)]
        # Not `subprocess`: a host outlives the process that started it, and nothing here waits for it.
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *OUR_MODULE, "jina_asgi.serving.programs.pool_host", *words],
            _environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, listening.fileno(), _LISTENING),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in inheritable(above=_LISTENING)),
            ],
            setsid=True,
        )


def inheritable(*, above: int) -> list[int]:
    """The inheritable descriptors, which a process that outlives this one must close: hypercorn waits for the end of one."""
    found = list[int]()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if descriptor > above and os.get_inheritable(descriptor):
                found.append(descriptor)
        except OSError:
            pass  # the descriptor of this listing itself
    return found


def _reap() -> None:
    """Reaps the hosts that this process started and that have ended."""
    for pid in list(_started):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # another part of the program, which waits for all children, has reaped it
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
        lock_within(_STARTING, descriptor, path)
        yield
    finally:
        os.close(descriptor)
