"""A port, or a socket's path, that the workers of one server share: the first of them sees that nobody else has it.

The system lets any process of this user join a port by SO_REUSEPORT, and shares out its connections without a word. So
the first binds without it; the others see, by a lock that the first holds as long as it lives, that this was done.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.excepts import PortAlreadyUsed
from jina_asgi.processes import place

__all__ = ["claimed", "claimed_path"]

_OURS: set[str] = set()  # what this process holds: two applications in it do not share a port


@contextmanager
def claimed(host: str, port: int) -> Iterator[Callable[[], None]]:
    """Hold a port for the server that this process is a worker of; gives what is to be called once it is bound here.

    Blocks while another process of this user is about to bind it.

    Raises:
        PortAlreadyUsed: somebody else listens there. DefinitionError: this machine has no such address.
        NotReady: there is nowhere to keep the locks.
    """
    with _held(f"port {port} of {host}", f"port-{port}", lambda: check(host, port)) as bound:
        yield bound


@contextmanager
def claimed_path(path: str) -> Iterator[Callable[[], None]]:
    """As `claimed`, the path of a Unix socket: a worker of this server may take it from another, nobody else may."""
    path = os.path.realpath(path)
    name = f"path-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    with _held(f"the socket {path}", name, lambda: check_path(path)) as bound:
        yield bound


@contextmanager
def _held(what: str, name: str, check: Callable[[], None]) -> Iterator[Callable[[], None]]:
    if what in _OURS:
        raise PortAlreadyUsed(f"{what} is in use by this process itself; choose another")
    with ExitStack() as opened:
        _OURS.add(what)
        opened.callback(_OURS.discard, what)
        gate = _opened(place.folder("ports") / f"gate-{name.removeprefix('port-')}", opened)
        fcntl.flock(gate, fcntl.LOCK_EX)
        held = _opened(place.folder(place.instance(named=False).key) / name, opened)
        if _is_first(held):
            check()
        fcntl.flock(held, fcntl.LOCK_SH)
        yield lambda: fcntl.flock(gate, fcntl.LOCK_UN)


def check_path(path: str) -> None:
    """Return where nobody listens on a Unix socket; raises PortAlreadyUsed."""
    with socket.socket(socket.AF_UNIX) as alone:
        alone.setblocking(False)
        try:
            alone.connect(path)
        except BlockingIOError:
            pass  # somebody listens, and has many who wait
        except OSError:
            return  # nobody does, or whoever binds it will say what is wrong
    raise PortAlreadyUsed(f"the socket {path} is in use; choose another")


def check(host: str, port: int) -> None:
    """Return where nobody listens.

    Raises:
        PortAlreadyUsed, DefinitionError: as `claimed`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DefinitionError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are ending do not count
            if family == socket.AF_INET6:
                alone.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                alone.bind(address)
                alone.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortAlreadyUsed(f"port {port} of {host} is in use; choose another") from error
                raise DefinitionError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _opened(path: Path, opened: ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotReady(f"no port can be shared: {error.strerror}: {path}") from error
    opened.callback(os.close, descriptor)
    return descriptor


def _is_first(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
