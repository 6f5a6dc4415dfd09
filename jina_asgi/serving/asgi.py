"""What users make of a source: JinaASGI, the ASGI application; GRPCSidecar, gRPC alone; `mount`, into an app.

A source is a Deployment or a Flow, or what names one: a class, an import path, or YAML.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike
from typing import Any, Self, Unpack, overload
from wsgiref.types import StartResponse, WSGIEnvironment

from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.config.reading import Reading, is_yaml, opened
from jina_asgi.errors import DefinitionError
from jina_asgi.executors.endpoints import normalised
from jina_asgi.executors.executor import Executor
from jina_asgi.serving.application import Application
from jina_asgi.serving.deployment import Deployment
from jina_asgi.serving.flow import Flow
from jina_asgi.serving.service_group import awaiting
from jina_asgi.serving.source import Source
from jina_asgi.serving.wsgi import WsgiApp
from jina_asgi.settings import AppSettings, GrpcSettings
from jina_asgi.settings.document import Document
from jina_asgi.settings.options import AppOptions, SidecarOptions

#: What a source may be given as.
AnySource = Source | type[Executor] | str | PathLike[str]


class JinaASGI(Application):
    """A Deployment or a Flow (or an Executor class) as an ASGI application of its own.

    Serve it at the root (`gunicorn app:asgi`), or let `mount` put it into a Starlette or FastAPI app. Where the
    source knows its endpoints only once it has started, requests wait for that, for `startup_wait` at most.

    Called with two arguments it is its own `wsgi`: what gunicorn's sync worker does, which plain `gunicorn app:asgi`
    starts.

    Attributes:
        wsgi: the same as a WSGI application, for Flask, Django and servers that speak WSGI. It streams, and has no
            WebSocket; it loads when it is first asked.

    Args:
        source: the Deployment, Flow or Executor class that is served.
        options: those of `AppSettings`: `auth`, `limits`, `cors`, `startup_wait`, `wait_ready`, `expose_errors`,
            `title`, `description`, `version`, `grpc`.

    Raises:
        DefinitionError: a source that is none; an option that does not exist (it names the nearest) or does not fit.
    """

    def __init__(self, source: AnySource, **options: Unpack[AppOptions]) -> None:
        super().__init__(as_source(source), AppSettings.of(options))
        self.wsgi = WsgiApp(self._entrance)
        # Servers look at the attribute to learn which interface this is, and must find a coroutine function there.
        # A call goes to the class's own, below.
        vars(self)["__call__"] = self._entrance.__call__

    @overload
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]: ...
    @overload
    def __call__(self, scope: WSGIEnvironment, receive: StartResponse) -> Iterable[bytes]: ...
    def __call__(self, scope: Any, receive: Any, send: Any = None) -> Any:
        """ASGI 3, or with two arguments WSGI."""
        return self.wsgi(scope, receive) if send is None else self._entrance(scope, receive, send)


class GRPCSidecar:
    """A Deployment or a Flow (or an Executor class) answered over gRPC alone, in Jina's protocol, while `async with` lasts.

        async with GRPCSidecar(Deployment(uses=Model), "127.0.0.1:50051") as sidecar:
            ...

    Beside HTTP use `JinaASGI(source, grpc="127.0.0.1:50051")`. Both listen in the process that enters their lifespan.

    Args:
        source: the Deployment, Flow or Executor class that is served.
        bind: "host:port" (0: a free one), or "unix:/path".
        options: those of `JinaASGI`, and those of gRPC: `reflection`, `ssl_certfile`, `ssl_keyfile`, `ssl_clients`,
            `insecure_bind`, `compression`, `shared`, `options`.

    Raises:
        DefinitionError: a source, an address or an option that is none; the extra `grpc` is missing.
    """

    def __init__(self, source: AnySource, bind: str = "127.0.0.1:0", **options: Unpack[SidecarOptions]) -> None:
        own = {name: value for name, value in options.items() if name in GrpcSettings.model_fields}
        rest = {name: value for name, value in options.items() if name not in own}
        settings = AppSettings.of({"wait_ready": True, **rest, "grpc": {"required": True, **own, "bind": bind}})
        self._application = Application(as_source(source), settings)
        self._lives: list[AbstractAsyncContextManager[None]] = []

    @property
    def port(self) -> int | None:
        """Where it listens; None for a Unix socket, and before it does."""
        sidecar = self._application.sidecar
        return None if sidecar is None else sidecar.port

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        return self._application.service.ready

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """Loads and answers on entering; finishes what runs on leaving. For a host that composes lifespans itself.

        Raises:
            PortAlreadyUsed: the port is in use. ExecutorError: the Executor failed to load.
        """
        return self._application.lifespan()

    async def __aenter__(self) -> Self:
        life = self.lifespan()
        await life.__aenter__()
        self._lives.append(life)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._lives.pop().__aexit__(*raised)  # type: ignore[arg-type]  # the three of them, or None


def mount(app: Any, path: str, source: AnySource, **options: Unpack[AppOptions]) -> JinaASGI:
    """Mount a Deployment or a Flow (or an Executor class) into a Starlette or FastAPI app, and live within its lifespan.

    Routes that the host has already keep precedence. One source may be mounted more than once: its model is
    loaded once.

    Args:
        app: the host.
        path: the prefix, such as "/lm".
        source: the Deployment, Flow or Executor class that is served.
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
    router.lifespan_context = awaiting(asgi.source.household, _composed(router.lifespan_context, asgi))
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


def as_source(source: Any) -> Source:
    """What a source means.

    Raises:
        DefinitionError: it is none.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | PathLike) or (isinstance(source, type) and issubclass(source, Executor)):
        return source_of(source)
    raise DefinitionError(f"expected a Deployment, a Flow, an Executor class or a path to its YAML, got {source!r}")


def source_of(uses: Any, *, expected: tuple[str, ...] = (), **options: Any) -> Deployment | Flow:
    """The Flow of a Flow's YAML; else a Deployment.

    Args:
        uses: an Executor class, its import path, or YAML.
        expected: what the YAML may be of ("Executor", "Deployment", "Flow"); nothing: of any.
        options: those of the Deployment or the Flow, over what the YAML says.

    Raises:
        DefinitionError: it is none, or has mistakes, each with its file, line and column.
    """
    if not is_yaml(uses):
        return Deployment(uses, **options)
    found = opened(uses, {}, Reading())
    jtype = found.data.get("jtype")
    kind = jtype if jtype in ("Deployment", "Flow") else "Executor"
    if expected and kind not in expected:
        found.complain(("jtype",), f"expected the YAML of {_a(' or '.join(expected))}, got that of {_a(kind)}")
        found.check()
    return _loaded(found, kind, options)


def _loaded(found: Document, kind: str, options: dict[str, Any]) -> Deployment | Flow:
    if kind == "Flow":
        return Flow.load_config(found, **options)
    return Deployment.load_config(found, **options) if kind == "Deployment" else Deployment(found, **options)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
