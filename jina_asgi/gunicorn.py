"""A configuration for gunicorn: `gunicorn -c python:jina_asgi.gunicorn app:asgi`.

It uses Uvicorn's worker with a shutdown that fits streams: accepted calls are finished, and those that would outlast
`graceful_timeout` get a last event shortly before it. Other settings (a file that imports this one,
`GUNICORN_CMD_ARGS`, the command line) apply as gunicorn documents. Only gunicorn imports this module.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Any

from jina_asgi.errors import JinaASGIError
from jina_asgi.processes import instance
from jina_asgi.processes.devices import ROUND_ROBIN, VARIABLE, WORKERS, environment_of_worker, visible_devices
from jina_asgi.processes.locks import lease
from jina_asgi.protocols.websocket.app import DRAINS
from jina_asgi.serving.lifecycle import announce_end, end_now
from jina_asgi.serving.uvicorn_server import released

try:
    from gunicorn.arbiter import Arbiter
    from gunicorn.errors import HaltServer
    from gunicorn.workers.gthread import ThreadWorker
    from gunicorn.workers.sync import SyncWorker
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
    from uvicorn.server import Server
    from uvicorn_worker import UvicornWorker
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jina_asgi.gunicorn needs {missing.name}; install it with: pip install 'jina-asgi[gunicorn]'",
        name=missing.name,
    ) from missing

__all__ = [
    "control_socket_disable",
    "graceful_timeout",
    "keepalive",
    "on_exit",
    "post_fork",
    "post_worker_init",
    "pre_fork",
    "when_ready",
    "worker_class",
]

worker_class = "jina_asgi.gunicorn.Worker"
graceful_timeout = 25  # under the 30 s that Kubernetes gives by default
keepalive = 75  # above the 60 s after which nginx and cloud load balancers drop an idle connection: they close it first
control_socket_disable = True  # its path is the same for all servers of a user; to turn it on, set another path


_NOTIFY = 1.0  # seconds between checks whether gunicorn lives; uvicorn would check every `timeout / 2`
_TURNS = 16  # turns of a busy event loop in which what ends has sent its last event; that takes up to 11
_ON_ITS_WAY = 0.5  # seconds in which the request of a newly accepted connection has to arrive


def when_ready(arbiter: Any) -> None:
    """Makes a second SIGTERM end the server sooner; gunicorn itself handles only SIGINT and SIGQUIT while it stops.

    A worker that was just forked still has gunicorn's handlers, which would keep such a signal for an event loop that is
    not its own: the server would wait for it until `graceful_timeout`.
    """
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if os.getpid() != arbiter.pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        arbiter.signal(signal.SIGQUIT if asked and number == signal.SIGTERM else number, frame)
        asked = asked or number == signal.SIGTERM

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, handle)
    instance.sweep()


def pre_fork(arbiter: Any, worker: Any) -> None:
    """Ends the server if the preloaded application makes the devices of its workers wrong or unusable."""
    torch, asked = sys.modules.get("torch"), os.environ.get(VARIABLE, "")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        reason = "CUDA is in use before the workers are forked, and none of them could use it; load without --preload"
    elif arbiter.cfg.preload_app and asked.startswith(ROUND_ROBIN):
        reason = f"{VARIABLE}={asked} gives each worker its device before torch is imported; load without --preload"
    else:
        return
    raise HaltServer(reason, Arbiter.APP_LOAD_ERROR)


def post_fork(arbiter: Any, worker: Any) -> None:
    """Leases this worker's slot, `JINA_ASGI_SLOT`; if `CUDA_VISIBLE_DEVICES` is "RR...", sets the slot's device.

    It runs before the application is loaded. A worker's replacement gets its slot, and so its device. If you have a
    `post_fork` of your own, call this one from it.
    """
    asked = os.environ.get(VARIABLE, "")
    os.environ[WORKERS] = str(arbiter.num_workers)
    try:
        slot = lease(instance.folder(instance.instance().key))
        wanted = asked.startswith(ROUND_ROBIN)
        _set(worker, environment_of_worker(slot, os.environ, visible_devices() if wanted else []))
        if wanted and os.environ[VARIABLE] == asked:
            worker.log.warning("%s=%s stays as it is: no device was found", VARIABLE, asked)
    except JinaASGIError as error:
        if asked.startswith(ROUND_ROBIN):
            worker.log.error("this worker gets no device: %s", error)
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None
        worker.log.warning("this worker has no slot: %s", error)


def post_worker_init(worker: Any) -> None:
    """Gives WSGI workers the shutdown of `Worker`: readiness becomes 503, and calls that would outlast
    `graceful_timeout` get NotReady shortly before it. gunicorn calls no hook when it ends such a worker.
    """
    if not isinstance(worker, SyncWorker | ThreadWorker):
        return
    before = signal.getsignal(signal.SIGTERM)
    timeout = float(worker.cfg.graceful_timeout)

    def handle(number: int, frame: Any) -> None:
        announce_end()
        ending = threading.Timer(timeout - min(2.0, timeout / 3), end_now)
        ending.daemon = True
        ending.start()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, handle)


def on_exit(arbiter: Any) -> None:
    """Removes this server's files; those of a pool named by `JINA_ASGI_POOL` are shared, and stay."""
    ending = instance.instance()
    try:
        if ending.pid is not None:
            instance.remove(ending.key)
    except JinaASGIError as error:
        arbiter.log.debug("the folder of this server stays: %s", error)


def _set(worker: Any, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    if VARIABLE in variables and VARIABLE in worker.cfg.env:  # gunicorn applies its `raw_env` again, after this
        own = {**worker.cfg.env, VARIABLE: variables[VARIABLE]}
        worker.cfg.set("raw_env", [f"{name}={value}" for name, value in own.items()])


class Worker(UvicornWorker):  # type: ignore[misc]  # it has no types
    """Uvicorn's worker with a shutdown in steps, counted back from `graceful_timeout`, when gunicorn kills it.

    At once: no new connections, idle ones are closed, readiness becomes 503. Then calls still running in this library's
    applications get NotReady; then connections whose clients do not read are closed; then uvicorn cancels the rest.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        timeout = float(self.cfg.graceful_timeout)
        self._margin = min(2.0, timeout / 3)
        self._grace = timeout - self._margin
        self.config.timeout_graceful_shutdown = max(0.0, timeout - self._margin / 2 - _ON_ITS_WAY)
        self.config.timeout_notify = min(self.config.timeout_notify, _NOTIFY)
        if self.config.http == "auto":
            self.config.http = released(AutoHTTPProtocol)
        if "ws_per_message_deflate" not in self.CONFIG_KWARGS:  # which would hold the event loop: 23 ms for each MB
            self.config.ws_per_message_deflate = False
        if self.config.ws == "auto" and AutoWebSocketsProtocol is not None:
            self.config.ws = _patient(AutoWebSocketsProtocol)

    async def callback_notify(self) -> None:
        """Called every second or two: reports to gunicorn that the worker is alive, and ends the worker if gunicorn is gone."""
        await super().callback_notify()
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _WorkerServer(self.config, self._grace, self._margin / 4)
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.quit)
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
        ):  # before uvicorn's own handler; uvicorn raises a caught signal again: to this one
            signal.signal(number, server.handle_exit)
        try:
            await server.serve(sockets=self.sockets)
        except SystemExit:
            if not server.should_exit:  # it could not start, and no shutdown was requested meanwhile
                raise
        else:
            if not (server.started or server.should_exit):
                raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


def _patient(protocol: Any) -> Any:
    """Makes uvicorn's WebSockets finish their calls on shutdown; uvicorn itself closes them at once."""

    class WebSocket(protocol):  # type: ignore[misc]  # its base depends on the installed library
        def shutdown(self) -> None:
            scope = getattr(self, "scope", None) or {}  # it has no transport before the handshake
            closing = getattr(self, "close_sent", False)
            if closing or not scope.get("state", {}).get(DRAINS):
                super().shutdown()

    return WebSocket


class _WorkerServer(Server):
    """Uvicorn's server; `grace` is the seconds that calls and streams get, `pause` those for sending their last events."""

    def __init__(self, config: Any, grace: float, pause: float) -> None:
        super().__init__(config)
        self._grace, self._pause = grace, pause

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handles a request to end. Further ones are ignored, as gunicorn repeats its signal."""
        if not self.should_exit and not self.started:
            end_now()  # it is still loading: there is nothing to finish
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: Any = None) -> None:
        announce_end()
        ending = asyncio.get_running_loop().call_later(self._grace, self._end)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ON_ITS_WAY)  # uvicorn closes connections without a request yet: they get this moment
        try:
            await super().shutdown(sockets=sockets)
        finally:
            ending.cancel()

    def quit(self) -> None:
        """Ends at once: gunicorn's quick shutdown, within 2 s."""
        self.should_exit = True
        self._end()
        asyncio.get_running_loop().call_later(1.0, self._force)

    def _end(self) -> None:
        end_now()
        asyncio.get_running_loop().call_later(self._pause, self._cut)

    def _cut(self, turns: int = _TURNS) -> None:
        """Closes the remaining connections: their clients do not read, or the host's own routes still run.

        On a slow machine calls and streams may not have sent their last events yet: they get some turns of the loop.
        """
        if turns:
            asyncio.get_running_loop().call_soon(self._cut, turns - 1)
            return
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _force(self) -> None:
        self.force_exit = True
