"""Begins and ends the writing of this process's figures, in the folder where the processes of its server meet."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.observability import writer
from jina_asgi.observability.figures import FIGURES
from jina_asgi.observability.measures import STATUSES, BatchMeasures, LoopLag, monitored
from jina_asgi.observability.metrics import BUILD_INFO, REPLICA_MEMORY
from jina_asgi.observability.switch import SWITCH
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.host_socket import inheritable
from jina_asgi.runners.wrappers import Wrapper

logger = logging.getLogger("jina_asgi")

_WAITER = Path(__file__).with_name("remove_after.py")


def begin() -> writer.FigureWriter:
    """Begin to write the figures of this process, unless it does already.

    Raises:
        NotReady: there is no usable folder, or it cannot be written to.
    """
    found = writer.WRITER
    if found.folder is None:
        server_instance.sweep()
        FIGURES.figure(BUILD_INFO, metadata.version("jina-asgi"), platform.python_version()).value = 1
        join(folder_of(server_instance.instance().key))
    return found


def enter() -> None:
    """As `begin`, for one that serves until `end`; without a usable folder it serves all the same, and the log says so."""
    try:
        begin()
    except (NotReady, DefinitionError) as error:
        logger.error("this process shows no metrics: %s", error)
    writer.WRITER.users += 1


def join(folder: Path) -> None:
    """Begin to write to the folder of a server, unless this process does already; raises as `begin`."""
    found = writer.WRITER
    SWITCH.monitored = monitored
    if STATUSES.look not in found.before:
        found.before.append(STATUSES.look)
    try:
        found.wake(folder)
    except OSError as error:
        raise NotReady(f"the metrics cannot be written: {error.strerror}: {folder}") from error


def leave() -> None:
    """End writing, in a process that the server does not live as long as."""
    with suppress(OSError, NotReady):  # the folder is gone
        writer.WRITER.rest(removes=False)


def end() -> None:
    """One that serves has ended. With the last one of the server the folder goes, at the latest when the server has ended."""
    found = writer.WRITER
    found.users -= 1
    if found.users or found.folder is None:
        return
    instance = server_instance.instance()
    ends_here = instance.pid == os.getpid()
    with suppress(OSError, NotReady):  # it is gone, or goes with the next start of a server
        if found.rest(removes=ends_here):
            if ends_here:
                server_instance.remove_without_pool(instance.key)
            else:
                _remove_after(instance)


@contextmanager
def measured(deployment: str, runner: Wrapper, process: str) -> Iterator[None]:
    """Measure a Runner that has loaded, and the event loop, until the end of the block."""
    runner.measure_batches(deployment, BatchMeasures)
    lag = LoopLag(process)
    lag.start()
    writer.WRITER.before.append(lag.show)
    try:
        with STATUSES.follow(runner.inner, deployment, runner.status):
            yield
    finally:
        writer.WRITER.before.remove(lag.show)
        lag.stop()


@contextmanager
def at_own_port(port: int) -> Iterator[None]:
    """Show the metrics at a port of their own until the end of the block, in one process of the server."""
    from jina_asgi.observability.own_port import OwnPort  # with prometheus_client, which replicas do not need

    found = writer.WRITER
    own = OwnPort(port, found.sums)
    found.before.append(own.look)
    found.write()
    try:
        yield
    finally:
        found.before.remove(own.look)
        own.close()


@contextmanager
def of_replica(folder: Path, deployment: str, replica: int) -> Iterator[None]:
    """Write the figures of this process, a replica, until the end of the block."""
    memory = FIGURES.figure(REPLICA_MEMORY, deployment, f"{deployment}/rep-{replica}")
    writer.WRITER.before.append(lambda: setattr(memory, "value", _resident()))
    join(folder)
    try:
        yield
    finally:
        leave()


def _resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def folder_of(key: str) -> Path:
    """The folder of the figures of a server instance.

    Raises:
        NotReady: there is no usable folder.
    """
    return server_instance.folder(key) / "metrics"


def _remove_after(instance: server_instance.Instance) -> None:
    """Have a process remove the folder, if the server ends now: the server itself runs no code of ours."""
    folder = server_instance.folder(instance.key)
    if instance.pid is None or sys.platform != "linux" or server_instance.has_pool_host(folder):
        return
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", str(_WAITER), str(instance.pid), str(folder)],
        {},
        file_actions=[
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)),
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in inheritable(above=2)),
        ],
        setsid=True,
    )
