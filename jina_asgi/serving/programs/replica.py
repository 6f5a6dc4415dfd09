"""A replica: one Executor in a process of its own, answering frames on the socket that it inherited.

Started by `jina_asgi.processes.replica_process`. It loads, says hello, answers, and ends with its connection. The
end of the process that started it ends it too, and whatever it started itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import io
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from jina_asgi.concurrency.gc_freeze import frozen
from jina_asgi.concurrency.loops import run
from jina_asgi.errors import ExecutorError, JinaASGIError
from jina_asgi.errors._raised import described, loggable
from jina_asgi.errors._shown import kind_of
from jina_asgi.processes.begun_page import Marks
from jina_asgi.processes.replica_spec import ReplicaSpec
from jina_asgi.processes.shared_memory import PeerSharing
from jina_asgi.processes.spawning import handle_in_this_process, heard
from jina_asgi.protocols.frames.server import FrameServer, Refusal
from jina_asgi.runners.local.runner import LocalRunner
from jina_asgi.serving.assembly import assemble_replica
from jina_asgi.settings import DeploymentSettings

logger = logging.getLogger("jina_asgi")

_PR_SET_PDEATHSIG = 1
_UNREAD = 5.0  # seconds that a failure's reason has to be read


def main() -> None:
    """The process's whole life. Its arguments: descriptors of its socket, its marks and `end_with`'s; its parent's pid."""
    for descriptor in map(int, sys.argv[1:4]):
        os.set_inheritable(descriptor, False)  # to us, not to the programs that the Executor runs
    end_with(int(sys.argv[4]), alive=int(sys.argv[3]))
    handle_in_this_process(
        _HANDLERS, as_usual={signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a line is read as it is printed, and not lost with the process
    process = os.getpid()
    connection, marks = socket.socket(fileno=int(sys.argv[1])), Marks(int(sys.argv[2]))
    with sys.stdin.buffer as given:
        spec = ReplicaSpec.loads(given.read())
    spec.logs.apply()
    try:
        run(_serve(spec, connection, marks))
    finally:
        if os.getpid() == process:  # a child that the Executor forked is in the same group
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)  # nothing that the Executor started outlives it


def end_with(parent: int, *, alive: int) -> None:
    """Have the system end this process and those that it starts when our parent ends; at once if it already has.

    `alive` is a pipe that only the parent holds open: at its end the system kills the group, whatever Python does just
    then. Where others have inherited the parent's end there is SIGTERM still.
    """
    fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETFL, os.O_ASYNC)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


async def _serve(spec: ReplicaSpec, connection: socket.socket, marks: Marks) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with _loaded(spec) as runner:
            with frozen():
                health = partial(_health, runner, spec)
                server = FrameServer(runner, on_begin=marks.begin, health=health, sharing=PeerSharing())
                await loop.connect_accepted_socket(lambda: server, connection)
                await server.wait_closed()
    except BaseException as error:
        if connection.fileno() == -1:  # it was served; this is about its end
            raise
        logger.error("%s could not be loaded", spec.uses, exc_info=loggable(error))
        await _refuse(connection, error)


@asynccontextmanager
async def _loaded(spec: ReplicaSpec) -> AsyncIterator[LocalRunner]:
    # The module is imported in the main thread, as it would be in any program; `__init__` runs in the Executor's.
    sys.path[:] = spec.path
    runner = assemble_replica(spec.uses, DeploymentSettings.of(spec.options), spec.replica)
    async with runner.lifespan():
        yield runner


async def _health(runner: LocalRunner, spec: ReplicaSpec) -> str:
    """As the Executor's own; where no thread of it will ever answer again this process ends, and is replaced."""
    limit = DeploymentSettings.of(spec.options).abandoned_timeout
    if runner.stuck > limit:
        logger.critical("every thread has been in calls that were given up for %g s: this replica ends", limit)
        _end_group(0, None)
    return runner.trouble()


async def _refuse(connection: socket.socket, error: BaseException) -> None:
    """Say why there will be no hello."""
    if not isinstance(error, JinaASGIError):
        cause, error = error, ExecutorError(described(error), raised=kind_of(error))
        error.__cause__ = cause
    server = Refusal(error)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: server, connection)
    try:
        async with asyncio.timeout(_UNREAD):
            await server.closed.wait()
    except TimeoutError:
        server.abort()


def _end_group(number: int, frame: object) -> None:
    os.killpg(0, signal.SIGKILL)


#: The parent's death, or an impatient parent; Ctrl-C in a terminal, which is the parent's to handle.
_HANDLERS: Mapping[int, Any] = {signal.SIGTERM: _end_group, signal.SIGINT: heard}


if __name__ == "__main__":
    main()
