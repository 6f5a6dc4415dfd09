"""A replica: one Executor in its own process, which serves frames on the socket that it inherited.

Started by `jina_asgi.processes.replica_process`. It loads, sends its hello, answers calls, and ends with its
connection. When the process that started it ends, it ends too, with every process that it started.
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
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from jina_asgi.concurrency.loops import run
from jina_asgi.concurrency.process_wide import frozen
from jina_asgi.errors import ExecutorError, JinaASGIError
from jina_asgi.errors._raised import error_text, loggable
from jina_asgi.errors._shown import class_name
from jina_asgi.observability.logs import PROCESS
from jina_asgi.processes.arena import StartedRequests
from jina_asgi.processes.replica_pool import ReplicaSpec
from jina_asgi.processes.replica_process import handle_in_this_process, ignore_signal
from jina_asgi.processes.shared_memory import PeerSharing
from jina_asgi.protocols.frames.server import FrameServer, Refusal
from jina_asgi.runners.local.runner import LocalRunner
from jina_asgi.serving.assembly import assemble_replica
from jina_asgi.settings import DeploymentSettings
from jina_asgi.types import Runner

logger = logging.getLogger("jina_asgi")

_PR_SET_PDEATHSIG = 1
_READ_TIMEOUT = 5.0  # seconds in which the reason of a failure has to be read


def main() -> None:
    """Runs the process; its arguments: three descriptors (socket, begun requests, `alive`), the parent's pid, its own name."""
    for descriptor in map(int, sys.argv[1:4]):
        os.set_inheritable(descriptor, False)  # inherited by this process, but not by programs that the Executor runs
    end_with(int(sys.argv[4]), alive=int(sys.argv[3]))
    handle_in_this_process(
        _SIGNAL_HANDLERS, as_usual={signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Lines then appear as they are printed, and are not lost with the process.
        sys.stdout.reconfigure(line_buffering=True)
    process = os.getpid()
    connection, started_requests = socket.socket(fileno=int(sys.argv[1])), StartedRequests(int(sys.argv[2]))
    with sys.stdin.buffer as given:
        spec = ReplicaSpec.loads(given.read())
    PROCESS.kind, PROCESS.deployment, PROCESS.replica = "replica", sys.argv[5].rpartition("/")[0], spec.replica
    spec.logs.apply()
    try:
        run(_serve(spec, connection, started_requests))
    finally:
        if os.getpid() == process:  # a child that the Executor forked is in the same group
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)  # no process that the Executor started outlives it


def end_with(parent: int, *, alive: int) -> None:
    """Makes the system end this process group when the parent ends; at once if it already has.

    `alive` is a pipe whose other end only the parent holds: when it closes, the system kills the group, whatever Python
    is doing. If another process has inherited the parent's end, SIGTERM still comes.
    """
    fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETFL, os.O_ASYNC)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


async def _serve(spec: ReplicaSpec, connection: socket.socket, started_requests: StartedRequests) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with _loaded(spec) as (runner, local):
            with frozen():
                health = partial(_health, local, spec)
                server = FrameServer(
                    runner, admits=False, on_begin=started_requests.begin, health=health, sharing=PeerSharing()
                )
                await loop.connect_accepted_socket(lambda: server, connection)
                await server.wait_closed()
    except BaseException as error:
        if connection.fileno() == -1:  # it was served: the error is about its end
            raise
        logger.error("%s could not be loaded", spec.uses, exc_info=loggable(error))
        await _refuse(connection, error)


@asynccontextmanager
async def _loaded(spec: ReplicaSpec) -> AsyncIterator[tuple[Runner, LocalRunner]]:
    # The module is imported in the main thread, as in any program; `__init__` runs in the Executor's thread.
    sys.path[:] = spec.path
    settings = DeploymentSettings.of(spec.options)
    with _figures(spec, settings.name):
        runner, local = assemble_replica(spec.uses, settings, spec.replica)
        async with runner.lifespan():
            yield runner, local


def _figures(spec: ReplicaSpec, deployment: str) -> AbstractContextManager[None]:
    """Writes the figures of this process, if its server has metrics."""
    if not spec.figures:
        return nullcontext()
    from jina_asgi.processes import server_figures  # not imported without metrics

    return server_figures.of_replica(Path(spec.figures), deployment, spec.replica)


async def _health(runner: LocalRunner, spec: ReplicaSpec) -> str:
    """The Executor's health; ends this process, to be replaced, if none of its threads will ever answer again."""
    limit = DeploymentSettings.of(spec.options).abandoned_timeout
    if runner.stuck > limit:
        logger.critical("every thread has been in calls that were given up for %g s: this replica ends", limit)
        _end_group(0, None)
    return runner.unhealthy_reason()


async def _refuse(connection: socket.socket, error: BaseException) -> None:
    """Sends the error in place of a hello."""
    if not isinstance(error, JinaASGIError):
        cause, error = error, ExecutorError(error_text(error), raised=class_name(error))
        error.__cause__ = cause
    server = Refusal(error)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: server, connection)
    try:
        async with asyncio.timeout(_READ_TIMEOUT):
            await server.closed.wait()
    except TimeoutError:
        server.abort()


def _end_group(number: int, frame: object) -> None:
    os.killpg(0, signal.SIGKILL)


#: SIGTERM: the parent has ended, or is out of patience; SIGINT: Ctrl-C in a terminal, which the parent handles.
_SIGNAL_HANDLERS: Mapping[int, Any] = {signal.SIGTERM: _end_group, signal.SIGINT: ignore_signal}


if __name__ == "__main__":
    main()
