"""Starts one replica process, connects to it, and ends it together with every process that it started."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from types import FrameType
from typing import Any, BinaryIO

from jina_asgi.concurrency.tasks import concurrent_tasks, run_to_completion
from jina_asgi.errors import NotReady
from jina_asgi.processes.arena import StartedRequests
from jina_asgi.processes.devices import VARIABLE
from jina_asgi.processes.logs import Output
from jina_asgi.processes.shared_memory import OwnerSharing
from jina_asgi.protocols.frames.client import FrameClient
from jina_asgi.runners.pool.replica import Replica
from jina_asgi.types import Endpoint

#: Python's options for running a module of this library: without `-P` a folder `types` in the working directory would
#: hide the standard library. The user's own paths are set once the interpreter runs.
OUR_MODULE = ("-P", "-m")

_forking = threading.local()


def ignore_signal(number: int, frame: FrameType | None) -> None:
    """A signal handler that does nothing: unlike SIG_IGN, programs that the process runs do not inherit it."""


def handle_in_this_process(handlers: Mapping[int, Any], *, as_usual: Mapping[int, Any]) -> None:
    """Handles signals in this process alone; in its forked children they do what they do `as_usual`.

    Signals are blocked while a process is forked: one that came before the child is ready would be lost. If a library
    replaced a handler by its own, which calls ours, the child keeps the library's: ours then acts as usual.

    Args:
        handlers: by the signal's number.
        as_usual: by the same numbers: Python's own handler, or SIG_DFL.
    """
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        usual = as_usual[number]
        if os.getpid() == owner:
            handlers[number](number, frame)
        elif callable(usual):
            usual(number, frame)
        else:
            signal.signal(number, usual)
            signal.raise_signal(number)

    def before() -> None:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)  # it would wake the event loop of the parent process
        for number in handlers:
            if signal.getsignal(number) is handle:  # the Executor may have a handler of its own
                signal.signal(number, as_usual[number])
        after()

    for number in handlers:
        signal.signal(number, handle)
    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)


_STOPPING = 10.0  # seconds that an Executor's `close` may take
_LAST_WORDS = 1.0  # seconds to wait for the rest of its output, or for the reason of its end


class ReplicaProcess(Replica):
    """One replica process, started once.

    Args:
        name: the prefix of its output lines.
        spec: the encoded `ReplicaSpec`, written to its standard input.
        env: its complete environment.
        endpoints: the endpoints that it must serve; None: those that it reports.
        startup_timeout: how long loading may take, in seconds.
        mark: begins its lines of JSON, if it logs JSON.
    """

    client: FrameClient

    def __init__(
        self,
        name: str,
        spec: bytes,
        env: Mapping[str, str],
        *,
        endpoints: Mapping[str, Endpoint] | None,
        startup_timeout: float,
        mark: str = "",
    ) -> None:
        super().__init__(name)
        self._spec, self._env, self.device = spec, env, env.get(VARIABLE, "")
        self._started_requests = StartedRequests.made()
        self._shared: OwnerSharing | None = None
        self.client = FrameClient(
            self._connect,
            endpoints=endpoints,
            hello_timeout=startup_timeout,
            grace=0.0,
            has_begun=self._started_requests.begun,
            sharing=self._sharing,
        )
        self._lifespan: AbstractAsyncContextManager[None] = self.client.lifespan()
        self._process: subprocess.Popen[bytes] | None = None
        self._output = Output(name, mark)
        self._exited = asyncio.Event()
        self._why = ""

    async def start(self) -> None:
        """Starts the process and waits until its Executor has loaded.

        Raises:
            ExecutorError: it failed to load. NotReady: it died while loading, or took too long.
        """
        self._spawn()
        try:
            async with concurrent_tasks(self._load(), self._exited.wait()) as (loading, exiting):
                await asyncio.wait([loading, exiting], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(
                    [loading, exiting], timeout=_LAST_WORDS if exiting.done() or _lost_connection(loading) else 0.0
                )
                if exiting.done() and (not loading.done() or _lost_connection(loading)):
                    raise NotReady(f"{self.name} {self._why} while it loaded; the log has what it printed")
                await loading
        except BaseException:
            await self.kill("failed to load")
            raise

    async def ended(self) -> str:
        """Waits until the process or its connection has ended; returns why."""
        async with concurrent_tasks(self.client.lost(), self._exited.wait()) as ends:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(ends, timeout=_LAST_WORDS)  # a process that it started may hold its connection open
        self.client.abort()
        return self._why or "closed its connection"

    async def stop(self) -> None:
        """Ends the process: cancels open calls and closes its Executor; kills it if that takes too long."""
        try:
            async with asyncio.timeout(_STOPPING):
                await self._lifespan.__aexit__(None, None, None)
                await self._exited.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill("was stopped")

    async def kill(self, why: str) -> None:
        """Kills the process group at once; `why` is what `ended` then returns.

        If this is cancelled, it still releases everything that this process held for the replica, and then raises.
        """
        self._why = self._why or why
        self.client.abort()
        if self._process is not None and not self._exited.is_set():
            _kill_group(self._process.pid)
        await run_to_completion(self._release())

    async def _release(self) -> None:
        """Waits for the end of the process, then closes everything held for it; calling it again does nothing."""
        if self._process is not None:
            await self._exited.wait()
        await self.client.lost()
        if self._shared is not None:
            self._shared.peer_exited()
        self._started_requests.close()
        self._ours.close()  # still open if loading was cancelled before it connected
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        if not self._output.is_connected:  # starting was cancelled before its output was read
            self._reading.close()
            return
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._output.ended.wait()
        except TimeoutError:  # a process that it started, in a session of its own, holds the output open
            self._output.close()
            await self._output.ended.wait()

    def resident(self) -> int:
        """The resident memory of the process in bytes; 0 once it has ended."""
        with suppress(OSError, AttributeError), open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def _sharing(self) -> OwnerSharing:
        """Its shared memory stays valid until the process has ended: an Executor may read docs that it kept in `close`."""
        self._shared = OwnerSharing(lasting=True)
        return self._shared

    def _spawn(self) -> None:
        with ExitStack() as left:  # closed if the process cannot be started
            left.callback(self._started_requests.close)
            self._ours, theirs = map(left.enter_context, socket.socketpair())
            self._reading, writing = map(left.enter_context, _pipe())
            alive, self._alive = map(left.enter_context, _pipe())
            descriptors = theirs.fileno(), self._started_requests.descriptor, alive.fileno()
            program = [sys.executable, *OUR_MODULE, "jina_asgi.serving.programs.replica"]
            command = [*program, *map(str, descriptors), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603  # this library's own program
                [*command, self.name],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=writing,
                stderr=writing,
                pass_fds=descriptors,
                start_new_session=True,
            )
            self.pid = self._process.pid
            self._pidfd = os.pidfd_open(self.pid)
            asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
            left.pop_all()
        for given in (theirs, writing, alive):
            given.close()

    async def _load(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        await asyncio.get_running_loop().connect_read_pipe(lambda: self._output, self._reading)
        given, spec = self._process.stdin, self._spec
        with suppress(BrokenPipeError):  # it has ended already, which `_ended` reports
            await asyncio.to_thread(_write_spec, given, spec)
        await self._lifespan.__aenter__()

    async def _connect(
        self, factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return await asyncio.get_running_loop().create_unix_connection(factory, sock=self._ours)

    def _ended(self) -> None:
        """Called when the process has ended: kills the processes that it started, and reaps it."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        assert self._process is not None
        _kill_group(self._process.pid)  # before it is reaped: until then no other process can have its pid
        status = self._process.wait()
        self._alive.close()
        self._why = self._why or _exit_reason(status)
        self._exited.set()


def _lost_connection(loading: asyncio.Future[None]) -> bool:
    """Whether loading failed only because the connection closed: the reason is then how the process ended."""
    return loading.done() and isinstance(loading.exception(), NotReady)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)


def _write_spec(given: object, spec: bytes) -> None:
    with given as pipe:  # type: ignore[attr-defined]  # a process's standard input
        pipe.write(spec)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _exit_reason(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}" + (", probably for want of memory" if -status == signal.SIGKILL else "")
