"""A Deployment or a Flow as an ASGI application: which request goes where, and the life of what answers."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.documents import field_plans, upload_files
from jina_asgi.errors import NotReady, UnknownEndpoint
from jina_asgi.errors._shown import said
from jina_asgi.protocols.http.app import CallApp, EndpointApp
from jina_asgi.protocols.http.disconnects import DisconnectWatch
from jina_asgi.protocols.http.routed import LateApp, PostApp
from jina_asgi.protocols.websocket.app import WebSocketApp
from jina_asgi.runners.wrapper import Wrapper
from jina_asgi.serving.grpc_sidecar import Sidecar
from jina_asgi.serving.management import Management, without_body
from jina_asgi.serving.service import Home
from jina_asgi.serving.source import Source
from jina_asgi.settings import AppSettings
from jina_asgi.types import Endpoint, Runner

logger = logging.getLogger("jina_asgi")


class Application:
    """The routes of one source below one prefix. Without a lifespan it loads when it is first asked.

    Such a life ends when the application is dropped.
    """

    def __init__(self, source: Source, options: AppSettings) -> None:
        self.source, self.options = source, options
        self._table = table = _Table(self.source, self.options)
        self.home = table.home
        self.management = table.management
        self.websocket = WebSocketApp(lambda: table.served.apps, self.home, self.options)
        #: What answers over gRPC, where that was asked for.
        self.sidecar = None if options.grpc is None else Sidecar(options.grpc, options, self.home, table)
        if self.sidecar is not None:
            self.management.beside["grpc"] = self.sidecar.status
        self._entrance = _Entrance(table, self.websocket, self.sidecar, options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entrance(scope, receive, send)  # async itself: uvicorn takes any other callable for one of ASGI 2

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """The life of what is mounted here, for a host that composes lifespans itself.

        Raises:
            PortAlreadyUsed: somebody else listens where gRPC was to be answered.
            ExecutorError: with `wait_ready`, the Executor failed to load.
        """
        return self._entrance.lifespan()

    @property
    def endpoints(self) -> Mapping[str, EndpointApp]:
        """The application of each endpoint.

        Raises:
            NotReady: the endpoints are known once the source has started.
        """
        return self._table.served.apps

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """Every path that is known to be answered here, with its methods."""
        calls: Mapping[str, CallApp] = {}
        with suppress(NotReady):
            calls = self._table.served.calls
        return {**self.management.routes, **{path: app.methods for path, app in calls.items()}}

    def openapi(self, root: str = "") -> dict[str, Any]:
        """The OpenAPI document, as seen below the prefix `root`.

        Raises:
            NotReady: the endpoints are known once the source has started.
        """
        return self.management.openapi(root)


class _Entrance:
    """Where requests, WebSockets and lifespans arrive.

    What lives behind it never refers to it, so that it ends with the last who could ask, without the garbage collector,
    and a life that no lifespan brought ends with it.
    """

    def __init__(self, table: _Table, websocket: WebSocketApp, sidecar: Sidecar | None, options: AppSettings) -> None:
        self._home, self._websocket, self._sidecar, self._options = table.home, websocket, sidecar, options
        self._http: ASGIApp = _Routes(table)
        if options.cors:
            self._http = CORSMiddleware(
                self._http,
                ["*"] if options.cors is True else options.cors,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["retry-after-ms", "x-jina-executed"],
            )
        weakref.finalize(self, table.home.leave).atexit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(route_path(scope), scope, receive, send)
        else:
            raise RuntimeError(f"it answers http, websocket and lifespan, and knows no {scope['type']!r}")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """As that of the application."""
        async with AsyncExitStack() as stack:
            if self._sidecar is not None:
                await stack.enter_async_context(self._sidecar.lifespan())
            await stack.enter_async_context(self._home.lifespan(wait_ready=self._options.wait_ready))
            yield

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        started = False
        try:
            async with self.lifespan():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            await send({"type": f"lifespan.{'shutdown' if started else 'startup'}.failed", "message": said(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


class _Routes:
    """Which HTTP request goes where."""

    def __init__(self, table: _Table) -> None:
        self._table, self._management = table, table.management

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        calls = self._table.current()
        call = calls.get(path)
        if call is not None:
            await call(scope, receive, send)
        elif calls or self._management.takes(path):
            await self._management(path, scope, send)
        else:
            method = scope["method"]
            await self._table.late(path, method)(scope, receive, without_body(send) if method == "HEAD" else send)


@dataclass(frozen=True, slots=True)
class _Served:
    """What was made of `source`, a mapping of endpoints: those that are served, and the application of each path."""

    source: Mapping[str, Endpoint]
    endpoints: Mapping[str, Endpoint]
    apps: Mapping[str, EndpointApp]
    calls: Mapping[str, CallApp]


class _Table:
    """The application of each path, made once the endpoints are known, and anew when a later life has others.

    `calls` is where requests go. While it is empty the Runner has to load first: it may come with other endpoints.
    """

    def __init__(self, source: Source, options: AppSettings) -> None:
        self._source, self._options, self._watch = source, options, DisconnectWatch()
        self.home = Home(_Followed(source.runner, self), options.startup_wait, source.household)
        self.management = Management(source, self.home, self, options)
        self.calls: Mapping[str, CallApp] = {}
        self._served: _Served | None = None
        self.begin()
        self._is_late = not self.calls

    @property
    def served(self) -> _Served:
        """What was made of the endpoints that are known.

        Raises:
            NotReady: none are.
        """
        return self._served if self.calls and self._served is not None else self._made()

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self.served.endpoints

    def current(self) -> Mapping[str, CallApp]:
        """Where requests go; those of a source that tells its endpoints late may change while it is served."""
        if (
            self._is_late
            and self.calls
            and self._served is not None
            and self._source.endpoints is not self._served.source
        ):
            self.calls = self._made().calls
        return self.calls

    async def loaded(self) -> Mapping[str, Endpoint]:
        if not self.calls:
            await self.home.runner()
            self.calls = self._made().calls
        return self.endpoints

    def late(self, path: str, method: str) -> LateApp:
        """What answers one request while `calls` is empty."""
        return LateApp(path, method, self._find, self.home, self._options, self._watch)

    def begin(self) -> None:
        """A life has begun: its endpoints are known now, or soon."""
        with suppress(NotReady):
            self.calls = self._made().calls

    def tidy(self) -> None:
        """Remove files of uploads that a process which was killed has left, where uploads are put into files here."""
        with suppress(NotReady):
            if any(field_plans.takes_paths(endpoint.input) for endpoint in self.endpoints.values()):
                upload_files.sweep()

    def end(self) -> None:
        """That life ends."""
        if self._is_late:
            self.calls = {}

    def _find(self, path: str) -> CallApp:
        self.calls = self._made().calls
        call = self.calls.get(path)
        if call is None:
            raise UnknownEndpoint("Not Found")
        return call

    def _made(self) -> _Served:
        found = self._source.endpoints
        if self._served is None or self._served.source is not found:
            endpoints = dict(self._unreserved(found))
            live, options, watch = self.home, self._options, self._watch
            apps = {name: EndpointApp(endpoint, live, options, watch) for name, endpoint in endpoints.items()}
            calls: dict[str, CallApp] = {**apps, "/post": PostApp(apps, live, options, watch)}
            self._served = _Served(found, endpoints, apps, calls)
        return self._served

    def _unreserved(self, endpoints: Mapping[str, Endpoint]) -> Iterator[tuple[str, Endpoint]]:
        """Those whose paths are free. An Executor's class is refused for others; this may be another's code."""
        for name, endpoint in endpoints.items():
            if self.management.takes(name) or name == "/post":
                logger.warning("%s: the endpoint %r is reserved, and is not served here", self._source.name, name)
            else:
                yield name, endpoint


class _Followed(Wrapper):
    """Tells a table when a life begins and ends."""

    def __init__(self, inner: Runner, table: _Table) -> None:
        super().__init__(inner)
        self._table = table

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.inner.lifespan():
            self._table.begin()
            self._table.tidy()
            try:
                yield
            finally:
                self._table.end()


def route_path(scope: Scope) -> str:
    """The path below the prefix that this application is mounted at.

    Servers leave the root path in front of `path`; proxies may have stripped it, and then only what the host's
    own mounts added to it is there.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root:
        mounted = root.removeprefix(scope.get("app_root_path", ""))
        for prefix in (root, mounted):
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return path[len(prefix) :] or "/"
    return path
