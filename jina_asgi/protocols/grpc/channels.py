"""The connections to one server, or to several equivalent ones: each call goes to the next available one."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from jina_asgi.concurrency.tasks import log_failure, start_task
from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.types import EMPTY

T = TypeVar("T")

_WORDS = (
    "gRPC was in use in the process that this one was forked from, and cannot be used here: ask over HTTP or a WebSocket,"
    " close what uses gRPC before the fork, or start processes by multiprocessing's 'spawn'"
)
#: What uses gRPC in this process: channels, servers and credentials, until they are deallocated.
_used: weakref.WeakSet[object] = weakref.WeakSet()
#: The same of the process from which this one was forked: closing them would wait for threads that are not here.
_inherited: list[object] = []
_is_cut_off = _was_used = _ends = False
#: Held while gRPC begins or ends, with its own locks and threads; a fork waits for it. The forking thread may have it, in a
#: signal handler.
_changing = threading.RLock()
#: How the names of gRPC's own threads begin, and the seconds that a fork waits for their end.
_THREADS, _ENDING = ("grpc", "event_engine", "lifeguard"), 1.0


def opened(make: Callable[[], T]) -> T:
    """Make a channel, a server or credentials; a process that is forked while they exist cannot use gRPC.

    Raises:
        DefinitionError: this process is one of these. What `make` raises.
    """
    global _was_used
    with _changing:
        if why := cut_off():
            raise DefinitionError(why)
        _was_used = True
        made = make()
        _used.add(made)
        return made


def forks_wait() -> AbstractContextManager[Any]:
    """A block in which the last references to them end: a process that was forked within it could wait forever."""
    return _changing


def cut_off() -> str:
    """Why gRPC cannot be used in this process; "" if it can."""
    return _WORDS if _is_cut_off else ""


def _before_fork() -> None:
    """Wait until gRPC has ended where nothing uses it: its last threads end after what they served, without an event."""
    global _ends
    _changing.acquire()
    _ends, until = False, time.monotonic() + _ENDING
    while _was_used and not _used and (_ends := _has_threads()) and time.monotonic() < until:
        time.sleep(0.001)


def _has_threads() -> bool:
    """Whether gRPC has threads of its own in this process; False on a system that does not list them."""
    names = list[str]()
    for task in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended
            names.append(task.read_text())
    return any(name.startswith(_THREADS) for name in names)


def _forked() -> None:
    global _is_cut_off
    _is_cut_off = _is_cut_off or _ends or bool(_used)
    _inherited.extend(_used)
    _used.clear()
    _changing.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_changing.release, after_in_child=_forked)


#: Pings as of Jina's clients: a lost server is noticed within 15 seconds.
OPTIONS = {
    "grpc.keepalive_time_ms": 9_999,
    "grpc.keepalive_timeout_ms": 4_999,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 5_000,  # which gRPC gives an attempt to connect: a far server takes long
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.use_local_subchannel_pool": 1,  # a new channel tries at once, even if others to that server wait
}
_PATIENCE = 10.0  # seconds for connecting
_NONE, _REASON = "/", 1.0  # a method that no server has, and the seconds for calling it
_READY, _IDLE, _CONNECTING, _SHUTDOWN = (
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.IDLE,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.SHUTDOWN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialling:
    """The options of connections.

    Attributes:
        credentials: those of gRPC's channels; None: without TLS.
        options: gRPC's own, which override those that are set here.
        compression: that of requests.
    """

    credentials: Any = None
    options: Mapping[str, Any] = EMPTY
    compression: Any = None

    @classmethod
    def of(
        cls,
        *,
        tls: bool = False,
        roots: Any = True,
        certificate: tuple[str, str] | None = None,
        options: Mapping[str, Any] = EMPTY,
        compression: str | None = None,
    ) -> Self:
        """Makes the options of connections.

        Args:
            tls: whether connections are encrypted.
            roots: the CA of the server's certificate, a file in PEM; True: gRPC's own CAs.
            certificate: the client's certificate and its key, files in PEM.
            options, compression: as in gRPC.

        Raises:
            DefinitionError: a file cannot be read; `roots` is invalid.
        """
        compressed = None if compression is None else grpc.Compression[compression]
        if not tls:
            return cls(options=options, compression=compressed)
        if not isinstance(roots, str | PathLike) and roots is not True:
            raise DefinitionError(
                f"verify={roots!r}: over gRPC expected True, or a file in PEM of who signs the server's certificate"
            )
        try:
            signers = None if roots is True else Path(roots).read_bytes()
            chain, key = (None, None) if certificate is None else (Path(file).read_bytes() for file in certificate)
        except OSError as error:
            raise DefinitionError(f"cannot read {error.filename}: {error.strerror}") from error
        return cls(
            credentials=opened(lambda: grpc.ssl_channel_credentials(signers, key, chain)),
            options=options,
            compression=compressed,
        )

    def channel(self, target: str) -> grpc.aio.Channel:
        """A channel to a target; it connects when it is used.

        Raises:
            DefinitionError: gRPC cannot be used in this process.
        """
        options = list({**OPTIONS, **self.options}.items())
        if self.credentials is None:
            return opened(lambda: grpc.aio.insecure_channel(target, options, self.compression))
        return opened(lambda: grpc.aio.secure_channel(target, self.credentials, options, self.compression))


class Line:
    """One channel, its methods, and its open calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel: grpc.aio.Channel | None = channel
        self._unary: dict[str, Any] = {}
        self._stream: dict[str, Any] = {}
        self._open: set[Any] = set()
        self._idle = asyncio.Event()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel.

        Raises:
            UsageError: it is closed.
        """
        if self._channel is None:
            raise grpc.aio.UsageError("the channel is closed")
        return self._channel

    def state(self, *, connects: bool = False) -> Any:
        """The channel's state; `connects`: it connects if it is idle."""
        return _SHUTDOWN if self._channel is None else self._channel.get_state(try_to_connect=connects)

    def unary(self, method: str, raw: bytes, **options: Any) -> Any:
        """Starts a unary call, of bytes; `options` are those of gRPC's calls."""
        found = self._unary.get(method)
        if found is None:
            found = self._unary[method] = self.channel.unary_unary(method)
        return self._opened(found(raw, **options))

    def stream(self, method: str, raw: bytes, **options: Any) -> Any:
        """Starts a call of a streaming method; arguments as in `unary`."""
        found = self._stream.get(method)
        if found is None:
            found = self._stream[method] = self.channel.unary_stream(method)
        return self._opened(found(raw, **options))

    async def finish(self) -> None:
        """Close the channel when it has no open calls: a draining server still answers them."""
        while self._open:
            self._idle.clear()
            await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """Close the channel; its open calls are cancelled."""
        if self._channel is not None:
            await self._channel.close()
        with forks_wait():
            self._channel = None
            self._unary.clear()
            self._stream.clear()

    def _opened(self, call: Any) -> Any:
        self._open.add(call)
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: Any) -> None:
        self._open.discard(call)
        self._idle.set()


class Channels:
    """Lines to equivalent servers, on one event loop.

    Args:
        targets: "host:port" or "unix:/path" of each.
        dialling: the options of connections.
    """

    def __init__(self, targets: Sequence[str], dialling: Dialling) -> None:
        self._targets, self._dialling = tuple(targets), dialling
        self._lines: dict[str, Line] = {}  # made on the loop that uses them
        self._turn = 0
        self._left: dict[asyncio.Task[None], Line] = {}
        self.name = ", ".join(targets)

    async def line(self) -> Line:
        """The next line that is connected.

        Raises:
            NotReady: no server can be reached.
        """
        self._turn = turn = (self._turn + 1) % len(self._targets)  # other calls use other lines while this one connects
        for target in (*self._targets[turn:], *self._targets[:turn]):
            line = self._lines.get(target)
            if line is not None and line.state() is _READY:
                return line
            line = await self._connected(target)
            if line is not None:
                return line
        raise NotReady(f"cannot connect to {self.name}{await self._reason(target)}")

    async def close(self) -> None:
        """Close the lines; their open calls are cancelled."""
        lines, left = [*self._lines.values(), *self._left.values()], [*self._left]
        for finishing in left:
            finishing.cancel()
        await asyncio.gather(*(line.close() for line in lines))
        await asyncio.gather(*left, return_exceptions=True)

    async def _reason(self, target: str) -> str:
        """Why gRPC cannot connect to a server, which only the error of a call says."""
        try:
            await self._lines[target].channel.unary_unary(_NONE)(b"", timeout=_REASON)
        except grpc.aio.AioRpcError as error:
            return f": {error.details()}" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
        return ""

    async def _connected(self, target: str) -> Line | None:
        line = self._lines.get(target)
        if line is None:
            line = self._lines[target] = Line(self._dialling.channel(target))
        state = line.state(connects=True)
        if state not in (_READY, _IDLE, _CONNECTING):  # it would wait before its next attempt
            line = self._anew(target, line)
            state = line.state(connects=True)
        try:
            async with asyncio.timeout(_PATIENCE):
                while state in (_IDLE, _CONNECTING):
                    await line.channel.wait_for_state_change(state)
                    state = line.state(connects=True)
        except TimeoutError:
            return None
        return line if state is _READY else None

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._left[task]
        log_failure(f"closing a connection to {self.name}")(task)

    def _anew(self, target: str, line: Line) -> Line:
        """Replaces a line that could not connect; its open calls end by themselves."""
        self._left[start_task(line.finish(), self._finished)] = line
        made = self._lines[target] = Line(self._dialling.channel(target))
        return made
