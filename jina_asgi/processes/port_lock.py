"""An address that the workers of one server have, and nobody else: whoever of them comes first sees to that.

The system lets any process of this user join a port by SO_REUSEPORT, and shares out its connections without a word. So
the first binds without it; the others see, by a lock that the first holds as long as it lives, that this was done. A
Unix socket's path, which gRPC would take from anybody, a worker may take from another of its server alone.
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
from jina_asgi.excepts import PortAlreadyUsed, Taken
from jina_asgi.processes import instance as server_instance
from jina_asgi.settings.grpc import Bind

__all__ = ["claimed"]

_OURS: set[Bind] = set()  # what this process holds: two applications in it do not share an address


@contextmanager
def claimed(where: Bind, *, waits: bool = True) -> Iterator[Callable[[], None]]:
    """Hold an address for the server that this process is a worker of; gives what is to be called once it is bound here.

    Args:
        where: a port, or the path of a Unix socket.
        waits: block while another process of this user is about to bind it.

    Raises:
        Taken: somebody else has what a worker of this server, which outlives its workers, had before; or, without
            `waits`, another process is about to bind it.
        PortAlreadyUsed: somebody else listens there. DefinitionError: this machine has no such address.
        NotReady: there is nowhere to keep the locks.
    """
    if where in _OURS:
        raise PortAlreadyUsed(f"{_called(where)} is in use by this process itself; choose another")
    name, instance = _name(where), server_instance.instance(named=False)
    with ExitStack() as opened:
        _OURS.add(where)
        opened.callback(_OURS.discard, where)
        gate = _opened(server_instance.folder("ports") / f"gate-{name}", opened)
        if not _locks(gate, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB)):
            raise Taken(f"another process is about to listen on {_called(where)}")
        held = _opened(server_instance.folder(instance.key) / f"port-{name}", opened)
        if _locks(held, fcntl.LOCK_EX | fcntl.LOCK_NB):
            try:
                check(where)
            except PortAlreadyUsed as error:
                if instance.pid != os.getpid() and os.fstat(held).st_size:
                    raise Taken(f"{_called(where)} was this server's, and somebody else has taken it") from error
                raise
        fcntl.flock(held, fcntl.LOCK_SH)

        def bound() -> None:
            os.ftruncate(held, 1)  # a length that needs no room
            fcntl.flock(gate, fcntl.LOCK_UN)

        yield bound


def check(where: Bind) -> None:
    """Return where nobody listens.

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
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are ending do not count
            if family == socket.AF_INET6:
                alone.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                alone.bind(address)
                alone.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortAlreadyUsed(f"{_called(where)} is in use; choose another") from error
                raise DefinitionError(f"cannot listen on {where.target}: {error.strerror}") from error


def _check_path(where: Bind) -> None:
    """What is left of a server that was killed is no obstacle: gRPC removes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(where.path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pass  # so many wait there already: somebody listens
        except OSError as error:
            raise DefinitionError(f"cannot listen on {where.target}: {error.strerror or error}") from error
    raise PortAlreadyUsed(f"{_called(where)} is in use; choose another")


def _called(where: Bind) -> str:
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


def _locks(descriptor: int, how: int) -> bool:
    """Whether it is locked now; False: another process holds it, and `how` does not wait."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True
