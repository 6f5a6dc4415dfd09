"""A Deployment or a Flow as an ASGI application: routes requests to its protocols, and has one lifespan."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, overload
from wsgiref.types import StartResponse, WSGIEnvironment

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.errors._shown import safe_str
from jina_asgi.protocols.http.app import CallApp, EndpointApp
from jina_asgi.protocols.http.routed import POST, HttpRoutes
from jina_asgi.protocols.websocket.app import WebSocketApp
from jina_asgi.serving.assembly import spans_of
from jina_asgi.serving.grpc_sidecar import Sidecar
from jina_asgi.serving.management import Management, is_managed, without_body
from jina_asgi.serving.service import RunnerService
from jina_asgi.serving.source import Source
from jina_asgi.serving.wsgi import WsgiApp
from jina_asgi.settings import AppSettings


class Application:
    """The routes of one source below one prefix. Without a lifespan it loads with the first call, and unloads when freed."""

    def __init__(self, source: Source, options: AppSettings) -> None:
        self.source, self.options = source, options
        self.service = service_of(source, options, lambda path: is_managed(path) or path == POST)
        self.management = Management(self.service, options)
        self.websocket = WebSocketApp(self.service, options.cors)
        #: The gRPC server, if the option `grpc` is set.
        self.sidecar = None if options.grpc is None else Sidecar(options.grpc, self.service)
        if self.sidecar is not None:
            self.management.sections["grpc"] = self.sidecar.status
        self._http = HttpRoutes(self.service)
        self._entrance = _Entrance(self, options)
        self.wsgi = WsgiApp(self._entrance)
        # Servers detect the interface by this attribute, and must find a coroutine function there. Calls use the
        # class's own method, below.
        vars(self)["__call__"] = self._entrance.__call__

    @overload
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]: ...
    @overload
    def __call__(self, scope: WSGIEnvironment, receive: StartResponse) -> Iterable[bytes]: ...
    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """ASGI 3, or with two arguments WSGI."""
        if send is None:
            return self.wsgi(scope, receive)
        return (self._entrance.http if scope["type"] == "http" else self._entrance)(scope, receive, send)

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """The application's lifespan, for a host that composes lifespans itself.

        Raises:
            PortAlreadyUsed: gRPC's port is in use.
            ExecutorError: with `wait_ready`, the Executor failed to load.
        """
        return self._entrance.lifespan()

    @property
    def endpoints(self) -> Mapping[str, EndpointApp]:
        """The application of each endpoint.

        Raises:
            NotReady: the source must start before its endpoints are known.
        """
        return self._http.apps

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """All known paths of the application, with their methods."""
        calls: Mapping[str, CallApp] = {}
        with suppress(NotReady):
            calls = self._http.calls
        return {**self.management.routes, **{path: app.methods for path, app in calls.items()}}

    def openapi(self, root: str = "") -> dict[str, Any]:
        """The OpenAPI document, as seen below the prefix `root`.

        Raises:
            NotReady: the source must start before its endpoints are known.
        """
        return self.management.openapi(root)


def service_of(source: Source, options: AppSettings, is_reserved: Callable[[str], bool]) -> RunnerService:
    """The service of an application: with spans of its requests if it or its source has the option `tracing`, and one that
    counts them with `metrics` or `playground`, and logs them with `access_log`.

    Raises:
        DefinitionError: OpenTelemetry or prometheus_client is missing.
    """
    settings = options if options.tracing or source.tracing is None else source.tracing
    tracing = spans_of(source.name, settings).tracing
    metrics = options if options.has_metrics or source.metrics is None else source.metrics
    lines: Callable[[Any], Callable[..., RunnerService]] = lambda kind: kind
    if options.access_log or source.access_log:
        from jina_asgi.serving.logged_service import logging_calls  # not imported without access lines

        lines = logging_calls
    if not (metrics.has_metrics or options.playground):
        if tracing is None:
            return lines(RunnerService)(source, options, is_reserved)
        from jina_asgi.serving.traced_service import TracedService  # with OpenTelemetry, an extra

        return lines(TracedService)(source, options, is_reserved, tracing)
    from jina_asgi.serving.metered import MeteredService, metered_and_traced  # not imported without metrics

    if metrics.has_metrics:
        try:
            import jina_asgi.observability.prometheus  # noqa: F401  # with prometheus_client, an extra
        except ImportError as error:
            raise DefinitionError(
                f"metrics=True needs the extra metrics: pip install 'jina-asgi[metrics]' ({error})"
            ) from error
    if tracing is None:
        return lines(MeteredService)(source, options, is_reserved, metrics)
    return lines(metered_and_traced())(source, options, is_reserved, metrics, tracing)


class _Entrance:
    """Receives requests, WebSockets and lifespans.

    The service has no reference to it, so that it is freed with its last user, without the garbage collector; a model that
    was loaded without a lifespan is unloaded then.
    """

    def __init__(self, app: Application, options: AppSettings) -> None:
        self._service, self._websocket, self._sidecar, self._options = app.service, app.websocket, app.sidecar, options
        #: Receives the requests over HTTP.
        self.http: ASGIApp = _HttpApp(app._http, app.management)
        if options.cors:
            self.http = CORSMiddleware(
                self.http,
                ["*"] if options.cors is True else options.cors,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["retry-after-ms", "x-jina-executed"],
            )
        weakref.finalize(self, app.service.leave).atexit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(route_path(scope), scope, receive, send)
        else:
            raise RuntimeError(f"it answers http, websocket and lifespan, and knows no {scope['type']!r}")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """As `Application.lifespan`."""
        async with AsyncExitStack() as stack:
            if self._sidecar is not None:
                await stack.enter_async_context(self._sidecar.lifespan())
            await stack.enter_async_context(self._service.lifespan(wait_ready=self._options.wait_ready))
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
            await send({"type": f"lifespan.{'shutdown' if started else 'startup'}.failed", "message": safe_str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


class _HttpApp:
    """Sends each HTTP request to the application of its path."""

    def __init__(self, routes: HttpRoutes, management: Management) -> None:
        self._routes, self._management = routes, management

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = route_path(scope) if scope.get("root_path") else scope["path"]
        calls = self._routes.current()
        call = calls.get(path)
        if call is not None:
            return call(scope, receive, send)
        if calls or is_managed(path):
            return self._management(path, scope, receive, send)
        method = scope["method"]
        return self._routes.late(path, method)(scope, receive, without_body(send) if method == "HEAD" else send)


def route_path(scope: Scope) -> str:
    """The path below the application's prefix.

    Servers keep the root path in front of `path`; if a proxy has stripped it, only the prefixes of the host's own mounts
    are there.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root:
        return path
    return _below(root, path) or _below(root.removeprefix(scope.get("app_root_path", "")), path) or path


def _below(prefix: str, path: str) -> str:
    """The path below a prefix; "" if it is not below it."""
    rest = path[len(prefix) :] or "/"
    return rest if rest[0] == "/" and path.startswith(prefix) else ""
