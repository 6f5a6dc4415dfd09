"""The pool host: one process a server instance, which keeps the replicas and the queue of all its web workers.

It never reads a document. Each connection asks for a Deployment first; equal ones share it. A Deployment whose code
or options have changed is another one: it loads beside the old, which ends when its last worker has left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from jina_asgi.assembly import assemble_pool
from jina_asgi.errors import ExecutorError, JinaASGIError, ProtocolError
from jina_asgi.heap import frozen
from jina_asgi.processes import place
from jina_asgi.processes.arenas import KeeperSharing
from jina_asgi.processes.asks import Ask, digest_of, read_ask
from jina_asgi.processes.loop import run
from jina_asgi.protocols.frames_server import HELLO_LIMIT, FrameServer, Refusal
from jina_asgi.runners.observe import ObserveRunner
from jina_asgi.settings import DeploymentSettings

logger = logging.getLogger("jina_asgi")

_ASKING = 10.0  # seconds in which a connection must say what it wants
_ALONE = 5.0  # seconds without workers after which the host of an instance that is no process ends
_UNUSED = 60.0  # seconds that a Deployment which nobody asks for stays while others are used
_FAILED = 30.0  # seconds for which a failure to load is told, before it is tried again
_PEER = struct.Struct("3i")  # pid, uid, gid


def own(error: Exception) -> JinaASGIError:
    """An error as a worker can be told it."""
    if isinstance(error, JinaASGIError):
        return error
    logger.error("the pool host failed", exc_info=error)
    return ExecutorError(f"{type(error).__name__}: {error}", raised=type(error).__name__)


class Generation:
    """One Deployment as one version of its code and options; lives until nobody uses it."""

    def __init__(self, ask: Ask) -> None:
        assert ask.uses is not None
        self.ask, self.settings = ask, DeploymentSettings.of(ask.options)
        self.name, self.uses = self.settings.name, ask.uses
        self.runner: ObserveRunner = assemble_pool(ask.uses, self.settings, ask.path, changed=self.tell, costs=False)
        self.users = 0
        self.connections: set[FrameServer] = set()
        self.superseded = False
        #: The version before, while this one does not work.
        self.older: Generation | None = None
        self.failure: JinaASGIError | None = None
        self.ready = asyncio.Event()  # or failed
        self.unused = asyncio.Event()
        self._ending = asyncio.Event()
        self._living: asyncio.Task[None] | None = None

    async def live(self) -> None:
        """Load, serve until told to end, unload. Told so while it loads, it is cancelled: nobody waits for it."""
        self._living = asyncio.current_task()
        if self._ending.is_set():
            return
        try:
            async with self.runner.lifespan():
                self.ready.set()
                await self._ending.wait()
        except Exception as error:
            logger.exception("%s could not be loaded", self.name)
            self.failure = own(error)
        finally:
            self.ready.set()

    def end(self) -> None:
        self._ending.set()
        if self._living is not None and not self.ready.is_set():
            self._living.cancel()

    @property
    def works(self) -> bool:
        """Whether it has loaded, and was not told to end."""
        return self.ready.is_set() and self.failure is None and not self._ending.is_set()

    def tell(self) -> None:
        """Tell every worker whether calls can be answered."""
        trouble = self.runner.trouble()
        for connection in self.connections:
            connection.tell(trouble)

    def status(self) -> dict[str, Any]:
        failure = None if self.failure is None else str(self.failure)
        return {"uses": str(self.uses), "users": self.users, "failure": failure, **self.runner.status()}


class Host:
    """All that one server instance keeps beside its workers."""

    def __init__(self, listening: socket.socket, instance: place.Instance) -> None:
        self._listening, self._instance = listening, instance
        self._generations: dict[str, Generation] = {}
        self._lives: dict[Generation, asyncio.Task[None]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def serve(self) -> None:
        """Answer until nobody can ask any more."""
        server = await asyncio.get_running_loop().create_unix_server(lambda: Reception(self), sock=self._listening)
        watch = asyncio.create_task(self._instance_ends())
        try:
            await self._until_over(watch)
        finally:
            watch.cancel()
            server.close()
            for generation in self._lives:
                generation.end()
            await asyncio.gather(*self._lives.values(), return_exceptions=True)

    def welcome(self, reception: Reception, ask: Ask) -> None:
        """Answer one connection."""
        task = asyncio.create_task(self._serve(reception, ask))
        self._connections.add(task)
        task.add_done_callback(self._left)

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
            waiting = asyncio.create_task(generation.ready.wait())
            leaving = asyncio.create_task(reception.gone.wait())
            await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            leaving.cancel()
            if generation.failure is not None:
                await reception.refuse(generation.failure)
            elif not reception.gone.is_set():
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
        generation = Generation(ask)
        for other in list(self._generations.values()):
            if other.name == generation.name:
                other.superseded = True
                if other.works:
                    generation.older = other
                elif not other.users:
                    self._end(other)
        self._generations[ask.fingerprint] = generation
        task = self._lives[generation] = asyncio.create_task(generation.live())
        task.add_done_callback(lambda _: self._over(generation))
        if generation.older is not None:
            settling = asyncio.create_task(self._settle(generation, generation.older))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
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

    def _over(self, generation: Generation) -> None:
        """It has ended, or failed to load: then the failure is told for a while."""
        self._lives.pop(generation, None)
        if generation.failure is not None:
            asyncio.get_running_loop().call_later(_FAILED, self._end, generation)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection to the pool host failed", exc_info=error)
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
            change = asyncio.create_task(self._changed.wait())
            await asyncio.wait([change, *([] if watch.done() else [watch])], return_when=asyncio.FIRST_COMPLETED)
            change.cancel()

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
            if not place.alive(pid, start):  # another process has its number by now
                return
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


class Reception(asyncio.Protocol):
    """A connection that has not yet said what it wants."""

    def __init__(self, host: Host) -> None:
        self._host, self._buffer = host, b""
        self._loop = asyncio.get_running_loop()
        self._asked = False
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(_ASKING, self._transport.abort)
        peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(peer)
        if uid != os.geteuid():
            logger.warning("user %d may not use this pool", uid)
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._asked:  # its first frames, for whoever will serve it
            if len(self._buffer) > HELLO_LIMIT:
                self._transport.abort()
            return
        try:
            found = read_ask(self._buffer)
        except ProtocolError as error:
            logger.warning("a connection to the pool host ends: %s", error)
            self._transport.abort()
            return
        if found is not None:
            self._asked = True
            ask, self._buffer = found
            self._timer.cancel()
            if ask.ask == "status":
                self._transport.write(json.dumps(self._host.status(), default=str).encode())
                self._transport.close()
            else:
                self._host.welcome(self, ask)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.gone.set()

    async def hand_over(self, generation: Generation, *, until: Generation | None = None) -> None:
        """Serve a Deployment on this connection until it ends; or until another works, which it is then to be asked for."""
        server = FrameServer(generation.runner, sharing=KeeperSharing(), figures=generation.runner.status)
        generation.connections.add(server)
        turning = None if until is None else asyncio.create_task(_turn(server, until, generation.settings.grace))
        try:
            await self._serve(server)
        finally:
            generation.connections.discard(server)
            if turning is not None:
                turning.cancel()

    async def refuse(self, error: JinaASGIError) -> None:
        """Say why there will be no hello."""
        if not self.gone.is_set():
            await self._serve(Refusal(error))

    async def _serve(self, server: FrameServer) -> None:
        self._transport.set_protocol(server)
        server.connection_made(self._transport)
        if self._buffer:
            server.data_received(self._buffer)
        await server.wait_closed()


async def _turn(server: FrameServer, to: Generation, grace: float) -> None:
    """Send whoever is connected to another version once that works."""
    await to.ready.wait()
    if to.works:
        await server.drain(grace)


def main() -> None:
    """The process's whole life. Its arguments: the descriptor that it listens on, and the instance."""
    descriptor, key, pid, start = sys.argv[1:]
    logging.basicConfig(stream=sys.stderr, format="[pool] %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its workers, and they with their server
    instance = place.Instance(key, int(pid) or None, int(start) or None)
    (place.folder(key) / "pid").write_text(f"{os.getpid()} {place.started(os.getpid()) or 0}")
    run(_serve(socket.socket(fileno=int(descriptor)), instance))
    if instance.pid is not None:
        place.remove(key)


async def _serve(listening: socket.socket, instance: place.Instance) -> None:
    with frozen():
        await Host(listening, instance).serve()


if __name__ == "__main__":
    main()
