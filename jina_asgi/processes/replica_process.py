"""The keeper's side of one replica: a process started, spoken to, watched, and ended with all that it started."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from typing import BinaryIO

from jina_asgi.concurrency.tasks import beside, completed
from jina_asgi.errors import NotReady
from jina_asgi.processes.begun_page import Marks
from jina_asgi.processes.devices import VARIABLE
from jina_asgi.processes.output import Output
from jina_asgi.processes.shared_memory import KeeperSharing
from jina_asgi.processes.spawning import OUR_MODULE
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.types import Endpoint

_STOPPING = 10.0  # seconds that an Executor's `close` may take
_SAID = 1.0  # seconds to wait for the last of its output


class ReplicaProcess:
    """One process, started once.

    Args:
        name: what its output is named by.
        spec: what it is told.
        env: its environment, complete.
        endpoints: those that it must serve; None: those that it says.
        startup_timeout: seconds that loading may take.
    """

    def __init__(
        self,
        name: str,
        spec: bytes,
        env: Mapping[str, str],
        *,
        endpoints: Mapping[str, Endpoint] | None,
        startup_timeout: float,
    ) -> None:
        self.name, self._spec, self._env, self._timeout = name, spec, env, startup_timeout
        self._marks = Marks.made()
        self._shared: KeeperSharing | None = None
        self.client = FrameClient(
            self._connect,
            endpoints=endpoints,
            hello_timeout=startup_timeout,
            grace=0.0,
            has_begun=self._marks.begun,
            sharing=self._sharing,
        )
        self._life: AbstractAsyncContextManager[None] = self.client.lifespan()
        self._process: subprocess.Popen[bytes] | None = None
        self._output = Output(name)
        self._exited = asyncio.Event()
        self._why = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def device(self) -> str:
        """The CUDA devices that it may use, as its environment says."""
        return self._env.get(VARIABLE, "")

    async def start(self) -> None:
        """Start the process and wait until its Executor has loaded.

        Raises:
            ExecutorError: it failed to load. NotReady: it died while it loaded, or took too long.
        """
        self._spawn()
        try:
            async with beside(self._load(), self._exited.wait()) as (loading, exiting):
                await asyncio.wait([loading, exiting], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait([loading, exiting], timeout=_SAID if exiting.done() or _is_unsaid(loading) else 0.0)
                if exiting.done() and (not loading.done() or _is_unsaid(loading)):
                    raise NotReady(f"{self.name} {self._why} while it loaded; the log has what it printed")
                await loading
        except BaseException:
            await self.kill("failed to load")
            raise

    async def ended(self) -> str:
        """Wait until it has ended, or its connection has; why."""
        async with beside(self.client.lost(), self._exited.wait()) as ends:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(ends, timeout=_SAID)  # what it started may hold its connection open
        self.client.abort()
        return self._why or "closed its connection"

    async def leaves(self) -> None:
        """Never: a replica does not ask to be replaced."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """End it: what still runs is cancelled, its Executor is closed; killed where that takes too long."""
        try:
            async with asyncio.timeout(_STOPPING):
                await self._life.__aexit__(None, None, None)
                await self._exited.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill("was stopped")

    async def kill(self, why: str) -> None:
        """End it and what it started, now; `why` is what `ended` then says.

        Where this is cancelled it is raised once all that this process held of the replica has been given back.
        """
        self._why = self._why or why
        self.client.abort()
        if self._process is not None and not self._exited.is_set():
            _kill_group(self._process.pid)
        await completed(self._give_back())

    async def _give_back(self) -> None:
        """Wait for its end, then close what this process holds of it; again does nothing."""
        if self._process is not None:
            await self._exited.wait()
        await self.client.lost()
        if self._shared is not None:
            self._shared.gone()
        self._marks.close()
        self._ours.close()  # nobody has taken these where loading was cancelled
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        if not self._output.is_connected:  # starting was cancelled before
            self._reading.close()
            return
        try:
            async with asyncio.timeout(_SAID):
                await self._output.ended.wait()
        except TimeoutError:  # something that it started holds its output open, in a session of its own
            self._output.close()
            await self._output.ended.wait()

    async def end_hung(self, why: str) -> None:
        """As `kill`."""
        await self.kill(why)

    def resident(self) -> int:
        """Bytes of memory that it holds, as the system counts them; 0 once it is gone."""
        with suppress(OSError, AttributeError), open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def _sharing(self) -> KeeperSharing:
        """What it was given stays until its process has ended: an Executor may read what it kept as it is closed."""
        self._shared = KeeperSharing(lasting=True)
        return self._shared

    def _spawn(self) -> None:
        with ExitStack() as left:  # where it cannot be started
            left.callback(self._marks.close)
            self._ours, theirs = map(left.enter_context, socket.socketpair())
            self._reading, writing = map(left.enter_context, _pipe())
            alive, self._alive = map(left.enter_context, _pipe())
            descriptors = theirs.fileno(), self._marks.descriptor, alive.fileno()
            program = [sys.executable, *OUR_MODULE, "jina_asgi.serving.programs.replica"]
            command = [*program, *map(str, descriptors), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [*command, self.name],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=writing,
                stderr=writing,
                pass_fds=descriptors,
                start_new_session=True,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
            asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
            left.pop_all()
        for given in (theirs, writing, alive):
            given.close()

    async def _load(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        await asyncio.get_running_loop().connect_read_pipe(lambda: self._output, self._reading)
        given, spec = self._process.stdin, self._spec
        with suppress(BrokenPipeError):  # it has ended already, which `_ended` tells
            await asyncio.to_thread(_give, given, spec)
        await self._life.__aenter__()

    async def _connect(
        self, factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return await asyncio.get_running_loop().create_unix_connection(factory, sock=self._ours)

    def _ended(self) -> None:
        """The process has ended: what it started goes with it, and the system forgets it."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        assert self._process is not None
        _kill_group(self._process.pid)  # before it is waited for: until then nobody else has its number
        status = self._process.wait()
        self._alive.close()
        self._why = self._why or _told(status)
        self._exited.set()


def _is_unsaid(loading: asyncio.Future[None]) -> bool:
    """Whether it failed with no reason given but that the connection ended: what the process's end was is to be said."""
    return loading.done() and isinstance(loading.exception(), NotReady)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)


def _give(given: object, spec: bytes) -> None:
    with given as pipe:  # type: ignore[attr-defined]  # a process's standard input
        pipe.write(spec)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _told(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}" + (", probably for want of memory" if -status == signal.SIGKILL else "")
