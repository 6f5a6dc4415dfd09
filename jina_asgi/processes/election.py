"""How web workers come to one pool host: whoever finds none starts it, under a lock; the others connect."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jina_asgi.devices import environment_of_shared
from jina_asgi.errors import NotReady
from jina_asgi.processes import place
from jina_asgi.processes.asks import Ask

logger = logging.getLogger("jina_asgi")

_BACKLOG = 1024
_INHERITED = 3  # the descriptor that a host listens on
_started: list[int] = []
_PATIENCE = 5.0  # seconds for a host to say how it is


def connect(instance: place.Instance) -> socket.socket:
    """A connection to the host of an instance, which is started where there is none. Blocks for some milliseconds.

    The socket listens before the host is started: who comes meanwhile waits in its backlog.

    Raises:
        NotReady, DefinitionError: there is no folder for the socket, or nothing can listen there.
    """
    _take_note()
    folder = place.folder(instance.key)
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


def end(instance: place.Instance) -> None:
    """Kill the host of an instance; its replicas end with it."""
    found = place.keeper(place.folder(instance.key))
    if found is not None and place.alive(found[0], found[1] or None):
        os.kill(found[0], signal.SIGKILL)


def status(path: Path) -> dict[str, Any] | None:
    """What the host at a socket says of itself; None: there is none any more."""
    connection = _connected(path)
    if connection is None:
        return None
    with connection:
        connection.settimeout(_PATIENCE)
        connection.sendall(Ask(ask="status").dumps())
        raw = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    found: dict[str, Any] = json.loads(raw)
    return found


def _connected(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise NotReady(f"cannot connect to the pool host at {path}: {error.strerror}") from error
    return connection


def _start(path: Path, instance: place.Instance) -> None:
    """Start a host that listens at a path.

    Raises:
        NotReady: it cannot be started.
    """
    try:
        pid = _spawned(path, instance)
        _started.append(pid)
        place.keeps(path.parent, pid)
    except OSError as error:
        raise NotReady(f"the pool host at {path} cannot be started: {error.strerror}") from error


def _spawned(path: Path, instance: place.Instance) -> int:
    path.unlink(missing_ok=True)  # what a host left that was killed
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        listening.bind(str(path))
        path.chmod(0o600)  # its folder lets nobody else in either
        listening.listen(_BACKLOG)
        words = [str(_INHERITED), instance.key, str(instance.pid or 0), str(instance.started or 0)]
        # Not `subprocess`: a host outlives whoever started it, and nobody here waits for it.
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "jina_asgi.processes.host", *words],
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
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
