"""A configuration for gunicorn: `gunicorn -c python:jina_asgi.gunicorn app:asgi`.

Uvicorn's worker, and an end that fits streams: what was accepted is finished, what would outlast `graceful_timeout`
gets its last event shortly before it. What else you set (a file that imports this one, `GUNICORN_CMD_ARGS`, the
command line) counts as gunicorn says. Imported by gunicorn alone.
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
from jina_asgi.processes.worker_slot import lease
from jina_asgi.protocols.websocket.app import DRAINS
from jina_asgi.serving.process_exit import announce_end, end_now
from jina_asgi.serving.uvicorn_connections import released

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
keepalive = 75  # above the 60 s after which nginx and cloud balancers let go of an idle connection: they go first
control_socket_disable = True  # its path is one a user, so that two servers collide; to turn it on, give it a path


_NOTIFY = 1.0  # seconds from one look whether gunicorn lives to the next; uvicorn would look every `timeout / 2`
_ON_ITS_WAY = 0.5  # seconds that the request of a connection just accepted has to arrive


def when_ready(arbiter: Any) -> None:
    """A second SIGTERM ends sooner; gunicorn itself listens for SIGINT and SIGQUIT alone while it stops.

    A worker that has just been forked still has gunicorn's handlers, which would keep such a signal for a loop that is
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
    """Ends the server where what it preloaded would make the devices of its workers wrong, or unusable."""
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
    """Leases this worker's slot, `JINA_ASGI_SLOT`; where `CUDA_VISIBLE_DEVICES` is "RR...", the slot's device is set.

    Before the application is loaded. A worker that replaces another gets its slot, hence its device. With a
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
            worker.log.error("no device can be given to this worker: %s", error)
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None
        worker.log.warning("this worker goes without a slot: %s", error)


def post_worker_init(worker: Any) -> None:
    """Gives the workers that speak WSGI the end of `Worker`: readiness is 503, and what would outlast
    `graceful_timeout` is told NotReady shortly before it. They call no hook when they are told to end.
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
    """Nothing of this server stays behind; what several servers share, named by `JINA_ASGI_POOL`, is not its own."""
    ending = instance.instance()
    try:
        if ending.pid is not None:
            instance.remove(ending.key)
    except JinaASGIError as error:
        arbiter.log.debug("the folder of this server stays: %s", error)


def _set(worker: Any, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    if VARIABLE in variables and VARIABLE in worker.cfg.env:  # gunicorn sets what its `raw_env` says again, after this
        own = {**worker.cfg.env, VARIABLE: variables[VARIABLE]}
        worker.cfg.set("raw_env", [f"{name}={value}" for name, value in own.items()])


class Worker(UvicornWorker):  # type: ignore[misc]  # it has no types
    """Uvicorn's worker with an end in steps, counted back from `graceful_timeout`, when gunicorn kills.

    At once: no new connections, idle ones are closed, readiness is 503. Then what still runs in our applications is
    told NotReady; then connections that nobody reads are cut; then uvicorn cancels what the host still runs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        timeout = float(self.cfg.graceful_timeout)
        self._margin = min(2.0, timeout / 3)
        self._grace = timeout - self._margin
        self.config.timeout_graceful_shutdown = timeout - self._margin / 2
        self.config.timeout_notify = min(self.config.timeout_notify, _NOTIFY)
        if self.config.http == "auto":
            self.config.http = released(AutoHTTPProtocol)
        if self.config.ws == "auto" and AutoWebSocketsProtocol is not None:
            self.config.ws = _patient(AutoWebSocketsProtocol)

    async def callback_notify(self) -> None:
        """Called every second or two: tells gunicorn that we live, and ends when gunicorn itself no longer does."""
        await super().callback_notify()
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _Server(self.config, self._grace, self._margin / 4)
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.quit)
        for number in (signal.SIGTERM, signal.SIGINT):  # before uvicorn's own; it raises again what it caught: to us
            signal.signal(number, server.handle_exit)
        try:
            await server.serve(sockets=self.sockets)
        except SystemExit:
            if not server.should_exit:  # it could not start, and was not asked to end meanwhile
                raise
        else:
            if not (server.started or server.should_exit):
                raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


def _patient(protocol: Any) -> Any:
    """Uvicorn's WebSockets, which it closes at once when it is asked to end; ours finish their calls and close then."""

    class WebSocket(protocol):  # type: ignore[misc]  # which library it is of depends on what is installed
        def shutdown(self) -> None:
            scope = getattr(self, "scope", None) or {}  # there is none before the handshake
            closing = getattr(self, "close_sent", False)
            if closing or not scope.get("state", {}).get(DRAINS):
                super().shutdown()

    return WebSocket


class _Server(Server):
    """Uvicorn's server; `grace` is what calls and streams get, `pause` what their last words need to get out."""

    def __init__(self, config: Any, grace: float, pause: float) -> None:
        super().__init__(config)
        self._grace, self._pause = grace, pause

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Asked to end. Asked again means nothing: gunicorn repeats itself."""
        if not self.should_exit and not self.started:
            end_now()  # it loads: there is nothing to finish
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: Any = None) -> None:
        announce_end()
        ending = asyncio.get_running_loop().call_later(self._grace, self._end)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ON_ITS_WAY)  # uvicorn closes connections that have not asked yet: they get this moment
        try:
            await super().shutdown(sockets=sockets)
        finally:
            ending.cancel()

    def quit(self) -> None:
        """End at once: gunicorn's quick shutdown, 2 s long."""
        self.should_exit = True
        self._end()
        asyncio.get_running_loop().call_later(1.0, self._force)

    def _end(self) -> None:
        end_now()
        asyncio.get_running_loop().call_later(self._pause, self._cut)

    def _cut(self) -> None:
        """Close the connections that are left: their clients do not read, or the host's own routes go on."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _force(self) -> None:
        self.force_exit = True
