"""JinaASGI, the ASGI application, and `mount`, which puts one into an app that exists already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.deployment import Deployment
from jina_asgi.endpoints import normalised
from jina_asgi.errors import DefinitionError, UnknownEndpoint
from jina_asgi.executor import Executor
from jina_asgi.home import Home
from jina_asgi.management import Management
from jina_asgi.protocols.bodies import exec_endpoint
from jina_asgi.protocols.http import Auth, EndpointApp, read_body, send_json
from jina_asgi.protocols.problems import problem
from jina_asgi.protocols.watch import DisconnectWatch
from jina_asgi.settings import Limits
from jina_asgi.types import resolve

Source = Deployment | type[Executor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a JinaASGI.

    Attributes:
        auth: `async (headers, endpoint) -> identity or None`; None is answered by 401. It covers every route but
            `/`, `/-/live` and `/-/ready`, and its answer is the Executor's `context.identity`.
        limits: bytes, docs and depth of one request.
        cors: allow every origin (or the origins in a list); None: leave CORS to the host.
        startup_wait: seconds that a call waits for loading before it is answered by 503.
        wait_ready: startup waits until everything has loaded, and fails where loading does.
        expose_errors: tell clients an Executor's own exceptions (for development).
        title, description, version: for the OpenAPI document.
    """

    auth: Auth | None = None
    limits: Limits = field(default_factory=Limits)
    cors: bool | list[str] = False
    startup_wait: float = 10.0
    wait_ready: bool = False
    expose_errors: bool = False
    title: str = "jina_asgi"
    description: str = ""
    version: str = "1"


class JinaASGI:
    """A Deployment (or an Executor class) as an ASGI application of its own.

    Serve it at the root (`gunicorn app:asgi`), or let `mount` put it into a Starlette or FastAPI app.

    Args:
        source: what answers.
        options: see `Options`.
    """

    def __init__(self, source: Source, **options: Any) -> None:
        self.source = as_deployment(source)
        self.options = _options(options)
        self.home = Home(self.source.runner, self.options.startup_wait)
        watch = DisconnectWatch()
        self.endpoints: Mapping[str, EndpointApp] = {
            name: EndpointApp(endpoint, self.home, self.options, watch)
            for name, endpoint in self.source.endpoints.items()
        }
        self._management = Management(self.source, self.home, self.options)
        self._app: ASGIApp = self._route
        if self.options.cors:
            origins = ["*"] if self.options.cors is True else self.options.cors
            self._app = CORSMiddleware(self._route, origins, allow_methods=["*"], allow_headers=["*"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "no WebSocket here"})

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """The life of what is mounted here, for a host that composes lifespans itself."""
        return self.home.lifespan(wait_ready=self.options.wait_ready)

    def openapi(self, root: str = "") -> dict[str, Any]:
        """The OpenAPI document."""
        return self._management.openapi(root)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        endpoint = self.endpoints.get(path)
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif path == "/post" and scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self._management(path, scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /post`, which names its endpoint in the body, as Jina's clients do."""
        try:
            raw = await read_body(receive, self.options.limits.body)
            media = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1").partition(";")[0].strip()
            name = normalised(exec_endpoint(media, raw)) or "/default"
            endpoint = resolve(self.source.endpoints, name)
            if endpoint is None:
                raise UnknownEndpoint(f"no endpoint {name!r} and no '/default'")
        except Exception as error:  # noqa: BLE001  # told to the client, and logged there
            status, body, headers = problem(error)
            await send_json(send, status, body, headers)
        else:
            await self.endpoints[endpoint.name].serve(scope, receive, send, raw)

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

    Args:
        app: the host.
        path: the prefix, such as "/lm".
        source: what answers.
        options: those of `JinaASGI`.

    Raises:
        DefinitionError: a path that is no prefix, an app that has no router, an option that does not exist.
    """
    prefix = normalised(path)
    if prefix in (None, "/default") or not path.startswith("/"):
        raise DefinitionError(
            f"mount(..., {path!r}, ...): expected a prefix such as '/lm'; serve a JinaASGI at the root"
        )
    router = getattr(app, "router", None)
    if router is None or not hasattr(router, "lifespan_context"):
        raise DefinitionError(f"mount({type(app).__name__}, ...): expected a Starlette or FastAPI app")
    asgi = JinaASGI(source, **options)
    router.routes.append(Route(prefix, _bare_prefix, methods=["GET"], include_in_schema=False))
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


async def _bare_prefix(request: Any) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({})


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
    """The path below the prefix that this application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def _options(options: Mapping[str, Any]) -> Options:
    known = Options.__dataclass_fields__
    for name in options:
        if name not in known:
            raise DefinitionError(f"JinaASGI has no option {name!r}; known: {', '.join(known)}")
    return Options(**options)
