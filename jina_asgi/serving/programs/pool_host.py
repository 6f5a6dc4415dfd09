"""The pool host: one process a server instance, which keeps the replicas and the queue of all its web workers.

It never reads a document. Each connection asks for a Deployment first; equal ones share it. A Deployment whose code
or options have changed is another one: it loads beside the old, which ends when its last worker has left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from jina_asgi.concurrency.gc_freeze import frozen
from jina_asgi.concurrency.loops import run
from jina_asgi.concurrency.tasks import begun, beside, ended, logged
from jina_asgi.processes import instance as server_instance
from jina_asgi.processes.handshake import Ask, digest_of
from jina_asgi.processes.host_socket import BACKLOG
from jina_asgi.processes.log_config import Logs
from jina_asgi.processes.spawning import heard
from jina_asgi.serving.programs.acceptor import Reception
from jina_asgi.serving.programs.deployment_version import Generation, own

logger = logging.getLogger("jina_asgi")

_PREFIX = "[pool] "  # of what it logs itself
_ALONE = 5.0  # seconds without workers after which the host of an instance that is no process ends
_ENDING = 10.0  # seconds that all Executors have to be closed in, once there are no workers
_UNUSED = 60.0  # seconds that a Deployment which nobody asks for stays while others are used
_FAILED = 30.0  # seconds for which a failure to load is told, before it is tried again


class Host:
    """All that one server instance keeps beside its workers."""

    def __init__(self, listening: socket.socket, instance: server_instance.Instance) -> None:
        self._listening, self._instance = listening, instance
        self._generations: dict[str, Generation] = {}
        self._lives: dict[Generation, asyncio.Task[None]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def serve(self) -> None:
        """Answer until nobody can ask any more."""
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Reception(self.welcome, self.status), sock=self._listening, backlog=BACKLOG
        )
        watch = begun(self._instance_ends(), self._news)
        try:
            await self._until_over(watch)
        finally:
            watch.cancel()
            server.close()
            await self._all_ended()

    async def _all_ended(self) -> None:
        """End every Deployment, within one limit: those whom their calls are for have left."""
        lives = dict(self._lives)
        for generation in lives:
            generation.end()
        grace = max((generation.settings.grace for generation in lives), default=0.0)
        limit = asyncio.get_running_loop().call_later(min(_ENDING, grace), _cancel, list(lives.values()))
        cancelled = await ended(list(lives.values()))
        limit.cancel()
        try:
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled  # its traceback holds this frame

    def welcome(self, reception: Reception, ask: Ask) -> None:
        """Answer one connection."""
        begun(self._serve(reception, ask), partial(self._left, reception), kept=self._connections)

    def status(self) -> dict[str, Any]:
        deployments = {key[:12]: {"name": g.name, **g.status()} for key, g in self._generations.items()}
        return {"pid": os.getpid(), "instance": self._instance.key, "deployments": deployments}

    async def _serve(self, reception: Reception, ask: Ask) -> None:
        try:
            generation = self._generation(ask)
        except Exception as error:  # noqa: BLE001  # told to the worker, which waits for an answer
            await reception.refuse(own(error))
            return
        with self._used(generation):
            if (older := self._standing_in(generation, ask)) is not None:
                with self._used(older):
                    await reception.hand_over(older, until=generation)
                return
            async with beside(generation.ready.wait(), reception.gone.wait()) as either:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if generation.failure is not None:
                await reception.refuse(generation.failure)
            else:
                await reception.hand_over(generation)

    @contextmanager
    def _used(self, generation: Generation) -> Iterator[None]:
        """Somebody uses a Deployment; the last one's leaving may end it."""
        generation.users += 1
        try:
            yield
        finally:
            generation.users -= 1
            if not generation.users:
                self._unused(generation)

    def _standing_in(self, generation: Generation, ask: Ask) -> Generation | None:
        """The version that answers while this one loads, or because it cannot: with the endpoints that are asked for."""
        older = generation.older
        if older is None or generation.works or not older.works:
            return None
        return older if ask.endpoints in ("", digest_of(older.runner.endpoints)) else None

    def _generation(self, ask: Ask) -> Generation:
        """The Deployment that is asked for; begun where there is none."""
        found = self._generations.get(ask.fingerprint)
        if found is not None:
            return found
        ask.logs.apply(_PREFIX)  # and so the replicas, which log as their keeper
        generation = Generation(ask)
        for other in list(self._generations.values()):
            if other.name == generation.name:
                other.superseded = True
                if other.works and (other.ask.uses, other.ask.options) == (ask.uses, ask.options):
                    generation.older = other  # its code has changed, nothing else: it is no other Deployment
                elif not other.users:
                    self._end(other)
        self._generations[ask.fingerprint] = generation
        self._lives[generation] = begun(generation.live(), partial(self._over, generation))
        if generation.older is not None:
            over = logged(f"giving way to the next version of {generation.name}")
            begun(self._settle(generation, generation.older), over, kept=self._settling)
        return generation

    async def _settle(self, generation: Generation, older: Generation) -> None:
        """The older version stays until the newer one works; where that cannot be loaded it stays for good."""
        with self._used(older):
            await generation.ready.wait()
            if generation.failure is not None:
                older.superseded = False
                logger.error("%s cannot be loaded anew; the version before answers on", generation.name)
        if generation.works:
            generation.older = None

    def _unused(self, generation: Generation) -> None:
        if generation.superseded:
            self._end(generation)
        else:
            asyncio.get_running_loop().call_later(_UNUSED, self._end_unused, generation)

    def _end_unused(self, generation: Generation) -> None:
        if not generation.users and self._connections:
            self._end(generation)

    def _end(self, generation: Generation) -> None:
        generation.end()
        if self._generations.get(generation.ask.fingerprint) is generation:
            del self._generations[generation.ask.fingerprint]

    def _over(self, generation: Generation, task: asyncio.Task[None]) -> None:
        """It has ended, or failed to load: then the failure is told for a while."""
        self._lives.pop(generation, None)
        generation.ready.set()  # whoever waits for it is told, though it may not have begun
        if generation.failure is not None:
            asyncio.get_running_loop().call_later(_FAILED, self._end, generation)

    def _left(self, reception: Reception, task: asyncio.Task[None]) -> None:
        logged("a connection to the pool host")(task)
        reception.close()  # nothing answers on it any more
        self._changed.set()

    def _news(self, task: asyncio.Task[None]) -> None:
        logged("watching the server")(task)
        self._changed.set()

    async def _until_over(self, watch: asyncio.Task[None]) -> None:
        """Return when no worker is left and none can come."""
        while True:
            if not self._connections:
                if watch.done():
                    return
                if self._instance.pid is None:
                    self._changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_ALONE):
                            await self._changed.wait()
                    if not self._connections:
                        return
            self._changed.clear()
            await self._changed.wait()

    async def _instance_ends(self) -> None:
        """Return when the process whose life is the instance's has ended; never, where it is none."""
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
            if not server_instance.alive(pid, start):  # another process has its number by now
                return
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def main() -> None:
    """The process's whole life. Its arguments: the descriptor that it listens on, and the instance."""
    descriptor, key, pid, start = sys.argv[1:]
    Logs().apply(_PREFIX)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, heard)  # it ends with its workers, and they with their server
    instance = server_instance.Instance(key, int(pid) or None, int(start) or None)
    run(_serve(socket.socket(fileno=int(descriptor)), instance))
    if instance.pid is not None:
        server_instance.remove(key)


async def _serve(listening: socket.socket, instance: server_instance.Instance) -> None:
    with frozen():
        await Host(listening, instance).serve()


if __name__ == "__main__":
    main()
