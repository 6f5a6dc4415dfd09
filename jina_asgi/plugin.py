"""JinaASGI, the ASGI application, and `mount`, which puts one into an app that exists already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.deployment import Deployment
from jina_asgi.endpoints import normalised
from jina_asgi.errors import DefinitionError
from jina_asgi.executor import Executor
from jina_asgi.home import Home
from jina_asgi.management import Management
from jina_asgi.protocols.http import CallApp, EndpointApp, PostApp
from jina_asgi.protocols.watch import DisconnectWatch
from jina_asgi.settings import AppSettings

Source = Deployment | type[Executor]


class JinaASGI:
    """A Deployment (or an Executor class) as an ASGI application of its own.

    Serve it at the root (`gunicorn app:asgi`), or let `mount` put it into a Starlette or FastAPI app.

    Args:
        source: what answers.
        options: those of `AppSettings`: `auth`, `limits`, `cors`, `startup_wait`, `wait_ready`, `expose_errors`,
            `title`, `description`, `version`.

    Raises:
        DefinitionError: a source that is none; an option that does not exist (it names the nearest) or does not fit.
    """

    def __init__(self, source: Source, **options: Any) -> None:
        self.source = as_deployment(source)
        self.options = AppSettings.of(options)
        self.home = Home(self.source.runner, self.options.startup_wait)
        watch = DisconnectWatch()
        self.endpoints: Mapping[str, EndpointApp] = {
            name: EndpointApp(endpoint, self.home, self.options, watch)
            for name, endpoint in self.source.endpoints.items()
        }
        self._calls: Mapping[str, CallApp] = {
            **self.endpoints,
            "/post": PostApp(self.endpoints, self.home, self.options, watch),
        }
        self._management = Management(self.source, self.home, self.options)
        self._app: ASGIApp = self._route
        if self.options.cors:
            origins = ["*"] if self.options.cors is True else self.options.cors
            self._app = CORSMiddleware(
                self._route, origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["retry-after-ms"]
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "no WebSocket here"})
        else:
            raise RuntimeError(f"JinaASGI answers http, websocket and lifespan, and knows no {scope['type']!r}")

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """The life of what is mounted here, for a host that composes lifespans itself."""
        return self.home.lifespan(wait_ready=self.options.wait_ready)

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """Every path that is answered here, with its methods."""
        return {**self._management.routes, **{path: app.methods for path, app in self._calls.items()}}

    def openapi(self, root: str = "") -> dict[str, Any]:
        """The OpenAPI document, as seen below the prefix `root`."""
        return self._management.openapi(root)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        call = self._calls.get(path)
        if call is not None:
            await call(scope, receive, send)
        else:
            await self._management(path, scope, send)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        started = False
        try:
            async with self.lifespan():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            await send({"type": f"lifespan.{'shutdown' if started else 'startup'}.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def mount(app: Any, path: str, source: Source, **options: Any) -> JinaASGI:
    """Mount a Deployment (or an Executor class) into a Starlette or FastAPI app, and live within its lifespan.

    Routes that the host has already keep precedence. One Deployment may be mounted more than once: its model is
    loaded once.

    Args:
        app: the host.
        path: the prefix, such as "/lm".
        source: what answers.
        options: those of `JinaASGI`.

    Raises:
        DefinitionError: a path that is no prefix, or that an earlier mount takes; an app that has no router; an
            option that does not exist.
    """
    prefix = normalised(path)
    if prefix is None or not path.startswith("/") or not path.strip("/"):
        raise DefinitionError(
            f"mount(..., {path!r}, ...): expected a prefix such as '/lm'; serve a JinaASGI at the root"
        )
    router = getattr(app, "router", None)
    if router is None or not hasattr(router, "lifespan_context"):
        raise DefinitionError(f"mount({type(app).__name__}, ...): expected a Starlette or FastAPI app")
    for route in router.routes:
        if isinstance(route, Mount) and f"{prefix}/".startswith(f"{route.path}/"):
            raise DefinitionError(
                f"mount(..., {path!r}, ...): what is mounted at {route.path or '/'!r} already answers every path below"
                " it; mount this before, or elsewhere"
            )
    asgi = JinaASGI(source, **options)
    router.routes.append(Route(prefix, _BarePrefix(asgi, prefix), name=prefix, include_in_schema=False))
    router.routes.append(Mount(prefix, app=asgi))
    router.lifespan_context = _composed(router.lifespan_context, asgi)
    return asgi


def _composed(host: Callable[[Any], Any], asgi: JinaASGI) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """The host's lifespan around ours: ours starts after it and ends before it."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with host(app) as state, asgi.lifespan():
            yield state

    return lifespan


class _BarePrefix:
    """`/lm`, answered as `/lm/` is: a Mount takes only what follows the slash."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        below = {"app_root_path": scope.get("app_root_path", root), "root_path": root + self._prefix}
        await self._app({**scope, **below}, receive, send)


def as_deployment(source: Any) -> Deployment:
    """What a source means.

    Raises:
        DefinitionError: it is none.
    """
    if isinstance(source, Deployment):
        return source
    if isinstance(source, type) and issubclass(source, Executor):
        return Deployment(uses=source)
    raise DefinitionError(f"expected a Deployment or an Executor class, got {source!r}")


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
