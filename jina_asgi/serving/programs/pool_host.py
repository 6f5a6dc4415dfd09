"""The pool host: one process for each server instance, with the replicas and the queue of all its web workers.

It never decodes a document. Each connection first requests a Deployment; equal Deployments are shared. A Deployment
whose code or options have changed is a new version: it loads beside the old one, which ends with its last worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from jina_asgi.concurrency.loops import run
from jina_asgi.concurrency.process_wide import frozen
from jina_asgi.concurrency.tasks import log_failure, start_task, wait_for_first, wait_until_done
from jina_asgi.observability.logs import PROCESS
from jina_asgi.observability.switch import SWITCH
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.handshake import HostRequest, digest_of
from jina_asgi.processes.host_socket import BACKLOG
from jina_asgi.processes.logs import LogConfig
from jina_asgi.processes.replica_process import ignore_signal
from jina_asgi.serving.programs.acceptor import AcceptedConnection, DeploymentVersion, Measured, as_library_error

logger = logging.getLogger("jina_asgi")

_PREFIX = "[pool] "  # the prefix of its own log lines
_ALONE = 5.0  # seconds without workers after which a host ends, unless its server replaces workers
_ENDING = 10.0  # seconds in which all Executors have to be closed, once there are no workers
_UNUSED = 60.0  # seconds that an unused Deployment stays loaded while others are used
_FAILED = 30.0  # seconds for which a load failure is reported before loading is tried again


class Host:
    """The pool host: its Deployments, and the connections of its workers."""

    def __init__(self, listening: socket.socket, instance: server_instance.Instance) -> None:
        self._listening, self._instance = listening, instance
        # Else this process was started by the instance's own one, whose applications have ended, or by any process.
        self._workers_are_replaced = instance.pid not in (None, os.getppid())
        self._versions: dict[str, DeploymentVersion] = {}
        self._tasks: dict[DeploymentVersion, asyncio.Task[None]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def serve(self) -> None:
        """Serves until no worker is left and none can come."""
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: AcceptedConnection(self.on_request, self.status), sock=self._listening, backlog=BACKLOG
        )
        instance_watch = start_task(self._instance_ends(), self._on_instance_ended)
        try:
            await self._until_over(instance_watch)
        finally:
            instance_watch.cancel()
            server.close()
            await self._end_all()

    async def _end_all(self) -> None:
        """Ends every Deployment within one time limit: the callers of open calls have disconnected already."""
        lives = dict(self._tasks)
        for version in lives:
            version.end()
        grace = max((version.settings.grace for version in lives), default=0.0)
        limit = asyncio.get_running_loop().call_later(min(_ENDING, grace), _cancel, list(lives.values()))
        cancelled = await wait_until_done(list(lives.values()))
        limit.cancel()
        try:
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled  # its traceback holds this frame

    def on_request(self, connection: AcceptedConnection, request: HostRequest) -> None:
        """Starts to serve one connection."""
        start_task(
            self._serve(connection, request), partial(self._on_connection_closed, connection), kept=self._connections
        )

    def status(self) -> dict[str, Any]:
        deployments = {key[:12]: {"name": version.name, **version.status()} for key, version in self._versions.items()}
        return {"pid": os.getpid(), "instance": self._instance.key, "deployments": deployments}

    async def _serve(self, connection: AcceptedConnection, request: HostRequest) -> None:
        try:
            version = self._version_for(request)
        except Exception as error:  # noqa: BLE001  # sent to the worker, which waits for an answer
            await connection.refuse(as_library_error(error))
            return
        with self._using(version):
            if (older := self._fallback(version, request)) is not None:
                with self._using(older):
                    await connection.hand_over(older, until=version)
                return
            await wait_for_first(version.ready.wait(), connection.gone.wait())
            if version.failure is not None:
                await connection.refuse(version.failure)
            else:
                await connection.hand_over(version)

    @contextmanager
    def _using(self, version: DeploymentVersion) -> Iterator[None]:
        """Counts a user of a Deployment version; when the last one leaves, the version may end."""
        version.users += 1
        try:
            yield
        finally:
            version.users -= 1
            if not version.users:
                self._unused(version)

    def _fallback(self, version: DeploymentVersion, request: HostRequest) -> DeploymentVersion | None:
        """The older version that answers while this one loads, or if it cannot; it must have the requested endpoints."""
        older = version.older
        if older is None or version.works or not older.works:
            return None
        return older if request.endpoints in ("", digest_of(older.runner.endpoints)) else None

    def _version_for(self, request: HostRequest) -> DeploymentVersion:
        """The Deployment version for a request, which is created and started if there is none."""
        found = self._versions.get(request.fingerprint)
        if found is not None:
            return found
        request.logs.apply(_PREFIX)  # inherited by the replicas, which log like their supervisor
        version = DeploymentVersion(request, measured_in(self._instance))
        for other in list(self._versions.values()):
            if other.name == version.name:
                other.superseded = True
                if other.works and (other.ask.uses, other.ask.options) == (request.uses, request.options):
                    version.older = other  # only its code has changed: the same Deployment
                elif not other.users:
                    self._end(other)
        self._versions[request.fingerprint] = version
        self._tasks[version] = start_task(version.live(), partial(self._on_version_ended, version))
        if version.older is not None:
            over = log_failure(f"giving way to the next version of {version.name}")
            start_task(self._settle(version, version.older), over, kept=self._settling)
        return version

    async def _settle(self, version: DeploymentVersion, older: DeploymentVersion) -> None:
        """Ends the older version once the newer one works; keeps it if the newer one cannot be loaded."""
        with self._using(older):
            await version.ready.wait()
            if version.failure is not None:
                older.superseded = False
                logger.error("%s cannot be loaded again; the previous version goes on answering", version.name)
        if version.works:
            version.older = None

    def _unused(self, version: DeploymentVersion) -> None:
        if version.superseded:
            self._end(version)
        else:
            asyncio.get_running_loop().call_later(_UNUSED, self._end_unused, version)

    def _end_unused(self, version: DeploymentVersion) -> None:
        if not version.users and self._connections:
            self._end(version)

    def _end(self, version: DeploymentVersion) -> None:
        version.end()
        if self._versions.get(version.ask.fingerprint) is version:
            del self._versions[version.ask.fingerprint]

    def _on_version_ended(self, version: DeploymentVersion, task: asyncio.Task[None]) -> None:
        """Called when a version has ended or failed to load; a load failure is kept for a while, to be reported."""
        self._tasks.pop(version, None)
        version.ready.set()  # wakes the connections that wait for it, though it may not have started
        if version.failure is not None:
            asyncio.get_running_loop().call_later(_FAILED, self._end, version)

    def _on_connection_closed(self, connection: AcceptedConnection, task: asyncio.Task[None]) -> None:
        log_failure("a connection to the pool host")(task)
        connection.close()  # nothing serves it any more
        self._changed.set()

    def _on_instance_ended(self, task: asyncio.Task[None]) -> None:
        log_failure("watching the server")(task)
        self._changed.set()

    async def _until_over(self, instance_watch: asyncio.Task[None]) -> None:
        """Returns when no worker is left and none can come."""
        while True:
            if not self._connections:
                if instance_watch.done():
                    return
                if not self._workers_are_replaced:
                    self._changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_ALONE):
                            await self._changed.wait()
                    if not self._connections:
                        return
            self._changed.clear()
            await self._changed.wait()

    async def _instance_ends(self) -> None:
        """Returns when the process of the instance has ended; never, for an instance that is no process."""
        pid, start = self._instance.pid, self._instance.started
        ended = asyncio.Event()
        if pid is None:
            await ended.wait()
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        try:
            if not server_instance.alive(pid, start):  # another process has its pid by now
                return
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def measured_in(instance: server_instance.Instance) -> Measured:
    """What measures a Deployment, if the web workers of this server have metrics; the replicas that start next write theirs."""
    folder = server_instance.folder(instance.key) / "metrics"
    if not folder.is_dir():
        return lambda *_: nullcontext()
    from jina_asgi.processes import server_figures  # not imported without metrics

    server_figures.join(folder)
    return server_figures.measured


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def main() -> None:
    """Runs the process. Its arguments: the descriptor that it listens on, and the instance."""
    descriptor, key, pid, start = sys.argv[1:]
    PROCESS.kind = "pool"
    LogConfig().apply(_PREFIX)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ignore_signal)  # it ends with its workers, and they with their server
    instance = server_instance.Instance(key, int(pid) or None, int(start) or None)
    server_instance.sweep()
    run(_serve(socket.socket(fileno=int(descriptor)), instance))
    if SWITCH.folder:
        from jina_asgi.processes import server_figures  # not imported without metrics

        server_figures.leave()
    if instance.pid is not None and not server_instance.alive(instance.pid, instance.started):
        server_instance.remove(key)


async def _serve(listening: socket.socket, instance: server_instance.Instance) -> None:
    with frozen():
        await Host(listening, instance).serve()


if __name__ == "__main__":
    main()
