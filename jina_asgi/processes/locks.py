"""Locks among the web workers of a server: of its address, which the first worker checks, and of each worker's number.

Locks an address for the workers of one server: the first worker checks that nothing else listens there.

With SO_REUSEPORT the system lets any process of this user join a port, and silently shares out its connections. So
the first worker binds once without it; the others see from a lock, held as long as a worker lives, that this was
done. A Unix socket's path, which gRPC would take from any process, is taken over only from a worker of this server.

Numbers the web workers of a server, lowest free number first: a worker's replacement gets its number.

The number is held by a lock on an open file, so it is free as soon as its process is gone, however it ended.
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
from jina_asgi.excepts import AddressInUse, PortAlreadyUsed
from jina_asgi.processes import instance as server_instance
from jina_asgi.settings.application import Bind

_OURS: set[Bind] = set()  # the addresses held by this process: two applications in it cannot share one


@contextmanager
def claimed(where: Bind, *, waits: bool = True) -> Iterator[Callable[[], None]]:
    """Claims an address for the server of this worker; yields a callback to run once the address is bound.

    Args:
        where: a port, or the path of a Unix socket.
        waits: block while another process of this user is about to bind it.

    Raises:
        AddressInUse: another process has taken the address since a worker of this server had it; or, without
            `waits`, another process is about to bind it.
        PortAlreadyUsed: another process listens there. DefinitionError: this machine has no such address.
        NotReady: there is no usable folder for the locks.
    """
    if where in _OURS:
        raise PortAlreadyUsed(f"{_described(where)} is in use by this process itself; choose another")
    name, instance = _name(where), server_instance.instance(named=False)
    with ExitStack() as opened:
        _OURS.add(where)
        opened.callback(_OURS.discard, where)
        gate = _opened(server_instance.folder("ports") / f"gate-{name}", opened)
        if not _try_lock(gate, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB)):
            raise AddressInUse(f"another process is about to listen on {_described(where)}")
        held = _opened(server_instance.folder(instance.key) / f"port-{name}", opened)
        if _try_lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB):
            try:
                check(where)
            except PortAlreadyUsed as error:
                if instance.pid != os.getpid() and os.fstat(held).st_size:
                    raise AddressInUse(
                        f"{_described(where)} was this server's, and another process has taken it"
                    ) from error
                raise
        fcntl.flock(held, fcntl.LOCK_SH)

        def bound() -> None:
            os.ftruncate(held, 1)  # a length that needs no disk space
            fcntl.flock(gate, fcntl.LOCK_UN)

        yield bound


def check(where: Bind) -> None:
    """Checks that nothing listens at an address.

    Raises:
        PortAlreadyUsed, DefinitionError: as `claimed`.
    """
    if where.path:
        _check_path(where)
        return
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DefinitionError(f"cannot listen on {where.target}: {error.strerror}") from error
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores connections that are still closing
            if family == socket.AF_INET6:
                alone.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                alone.bind(address)
                alone.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortAlreadyUsed(f"{_described(where)} is in use; choose another") from error
                raise DefinitionError(f"cannot listen on {where.target}: {error.strerror}") from error


def _check_path(where: Bind) -> None:
    """Checks that nothing listens at a socket's path; the file of a killed server does not count, gRPC removes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(where.path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pass  # its backlog is full: a server listens there
        except OSError as error:
            raise DefinitionError(f"cannot listen on {where.target}: {error.strerror or error}") from error
    raise PortAlreadyUsed(f"{_described(where)} is in use; choose another")


def _described(where: Bind) -> str:
    return f"the socket {where.path}" if where.path else f"port {where.port} of {where.host}"


def _name(where: Bind) -> str:
    return hashlib.sha256(os.path.realpath(where.path).encode()).hexdigest()[:16] if where.path else str(where.port)


def _opened(path: Path, opened: ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotReady(f"no port can be shared: {error.strerror}: {path}") from error
    opened.callback(os.close, descriptor)
    return descriptor


def _try_lock(descriptor: int, how: int) -> bool:
    """Takes a lock; False if another process holds it and `how` does not block."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True


_HELD: list[int] = []  # descriptors of this process's locks


def lease(folder: Path) -> int:
    """Leases the lowest slot that no process holds in `folder`, for the rest of this process's life.

    Slots count from 0. A process that leases twice holds two.

    Raises:
        NotReady: the folder is gone, or its file system has no locks.
    """
    number = 0
    while not _try_lease(folder / f"slot-{number}"):
        number += 1
    return number


def _try_lease(path: Path) -> bool:
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            raise
    except BlockingIOError:
        return False
    except OSError as error:
        raise NotReady(f"no slot can be leased: {error.strerror}: {path}") from error
    _HELD.append(held)
    return True


def _close_inherited() -> None:
    """Runs in a forked child: a lock lasts until the last copy of its descriptor is closed."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_close_inherited)
