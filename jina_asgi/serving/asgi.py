"""Serves a source: as an ASGI application (JinaASGI), over gRPC alone (GRPCSidecar), or mounted into an app (`mount`).

A source is a Deployment or a Flow, or names one: a class, an import path, or YAML.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike
from typing import Any, Self, Unpack

from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jina_asgi.errors import DefinitionError
from jina_asgi.executors.endpoints import normalised
from jina_asgi.executors.executor import Executor
from jina_asgi.serving.application import Application
from jina_asgi.serving.config.reading import Reading, is_yaml, opened
from jina_asgi.serving.deployment import Deployment
from jina_asgi.serving.flow import Flow
from jina_asgi.serving.service_group import awaiting
from jina_asgi.serving.source import Source
from jina_asgi.settings import AppSettings, GrpcSettings
from jina_asgi.settings.document import Document
from jina_asgi.settings.options import AppOptions, SidecarOptions
from jina_asgi.settings.tracing import TracingSettings

#: Anything that names a source.
AnySource = Source | type[Executor] | str | PathLike[str]


class JinaASGI(Application):
    """A Deployment or a Flow (or an Executor class) as an ASGI application of its own.

    Serve it at the root (`gunicorn app:asgi`), or let `mount` put it into a Starlette or FastAPI app. If the
    endpoints are known only after the source has started, requests wait for that, `startup_wait` at most.

    Called with two arguments it is its own `wsgi`, as gunicorn's sync worker calls it, which plain `gunicorn app:asgi`
    starts.

    Attributes:
        wsgi: the same as a WSGI application, for Flask, Django and WSGI servers. It streams, and has no WebSocket; it
            loads with the first request.

    Args:
        source: the Deployment, Flow or Executor class that is served.
        options: those of `AppSettings`: `auth`, `limits`, `cors`, `startup_wait`, `wait_ready`, `expose_errors`,
            `playground`, `title`, `description`, `version`, `grpc`.

    Raises:
        DefinitionError: an invalid source; an unknown option (the message names the nearest), or an invalid value.
    """

    def __init__(self, source: AnySource, **options: Unpack[AppOptions]) -> None:
        settings = AppSettings.of(options)
        super().__init__(as_source(source, **_tracing_of(settings)), settings)


class GRPCSidecar:
    """A Deployment or a Flow (or an Executor class) served over gRPC alone, in Jina's protocol, during `async with`.

        async with GRPCSidecar(Deployment(uses=Model), "127.0.0.1:50051") as sidecar:
            ...

    Beside HTTP use `JinaASGI(source, grpc="127.0.0.1:50051")`. Both listen in the process that enters their lifespan.

    Args:
        source: the Deployment, Flow or Executor class that is served.
        bind: "host:port" (0: a free one), or "unix:/path".
        options: those of `JinaASGI`, and those of gRPC: `reflection`, `ssl_certfile`, `ssl_keyfile`, `ssl_clients`,
            `insecure_bind`, `compression`, `shared`, `options`.

    Raises:
        DefinitionError: an invalid source, address or option; the extra `grpc` is missing.
    """

    def __init__(self, source: AnySource, bind: str = "127.0.0.1:0", **options: Unpack[SidecarOptions]) -> None:
        own = {name: value for name, value in options.items() if name in GrpcSettings.model_fields}
        rest = {name: value for name, value in options.items() if name not in own}
        settings = AppSettings.of({"wait_ready": True, **rest, "grpc": {"required": True, **own, "bind": bind}})
        self._application = Application(as_source(source, **_tracing_of(settings)), settings)
        self._lives: list[AbstractAsyncContextManager[None]] = []

    @property
    def port(self) -> int | None:
        """The port that it listens on; None for a Unix socket, and before it listens."""
        sidecar = self._application.sidecar
        return None if sidecar is None else sidecar.port

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        return self._application.service.ready

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """Loads and listens on entering; finishes open calls on leaving. For a host that composes lifespans itself.

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
    """Mount a Deployment or a Flow (or an Executor class) into a Starlette or FastAPI app; it is loaded and closed in the
    app's lifespan.

    Routes that the host already has take precedence. A source may be mounted more than once: its model is loaded once.

    Args:
        app: the host.
        path: the prefix, such as "/lm".
        source: the Deployment, Flow or Executor class that is served.
        options: those of `JinaASGI`.

    Raises:
        DefinitionError: an invalid prefix, or one of an earlier mount; an app without a router; an unknown option.
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
    router.routes.append(Mount(prefix, app=asgi))  # first, as routes are tried one after the other
    router.routes.append(Route(prefix, _BarePrefix(asgi, prefix), name=prefix, include_in_schema=False))
    router.lifespan_context = awaiting(asgi.source.group, _composed(router.lifespan_context, asgi))
    return asgi


def _composed(host: Callable[[Any], Any], asgi: JinaASGI) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """The host's lifespan with ours inside: ours starts later and ends earlier."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with host(app) as state, asgi.lifespan():
            yield state

    return lifespan


class _BarePrefix:
    """Answers `/lm` like `/lm/`, as a Mount answers only paths with the slash."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        below = {"app_root_path": scope.get("app_root_path", root), "root_path": root + self._prefix}
        await self._app({**scope, **below}, receive, send)


def _tracing_of(settings: AppSettings) -> dict[str, Any]:
    """The options of tracing, for a source that is not made yet."""
    return {name: getattr(settings, name) for name in TracingSettings.model_fields} if settings.tracing else {}


def as_source(source: Any, **options: Any) -> Source:
    """Makes a Deployment or a Flow of any source, with these options unless it is one already.

    Raises:
        DefinitionError: it is not a source.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | PathLike) or (isinstance(source, type) and issubclass(source, Executor)):
        return source_of(source, **options)
    raise DefinitionError(f"expected a Deployment, a Flow, an Executor class or a path to its YAML, got {source!r}")


def source_of(uses: Any, *, expected: tuple[str, ...] = (), **options: Any) -> Deployment | Flow:
    """Makes a Flow of a Flow's YAML, else a Deployment.

    Args:
        uses: an Executor class, its import path, or YAML.
        expected: the kinds of YAML that are accepted ("Executor", "Deployment", "Flow"); empty: all.
        options: those of the Deployment or the Flow; they override the YAML.

    Raises:
        DefinitionError: it is invalid, or the YAML has mistakes, each with its file, line and column.
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
