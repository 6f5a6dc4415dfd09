"""How web workers come to one pool host: whoever finds none starts it, under a lock; the others connect."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
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
_PATIENCE = 5.0  # seconds for a host to say how it is


def connect(instance: place.Instance) -> socket.socket:
    """A connection to the host of an instance, which is started where there is none. Blocks for some milliseconds.

    The socket listens before the host is started: who comes meanwhile waits in its backlog.

    Raises:
        NotReady, DefinitionError: there is no folder for the socket, or nothing can listen there.
    """
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
    try:
        pid, start = map(int, (place.folder(instance.key) / "pid").read_text().split())
    except (OSError, ValueError) as error:
        logger.warning("the pool host that hangs cannot be found: %s", error)
        return
    if place.alive(pid, start or None):
        os.kill(pid, signal.SIGKILL)


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
    path.unlink(missing_ok=True)  # what a host left that was killed
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        listening.bind(str(path))
        path.chmod(0o600)  # its folder lets nobody else in either
        listening.listen(_BACKLOG)
        words = [str(listening.fileno()), instance.key, str(instance.pid or 0), str(instance.started or 0)]
        host = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-m", "jina_asgi.processes.host", *words],
            stdin=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            start_new_session=True,
            env=_environment(),
        )
    # It outlives this process, or ends before: then somebody has to take note.
    threading.Thread(target=host.wait, name="jina-asgi-host", daemon=True).start()


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
