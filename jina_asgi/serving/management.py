"""The management routes: liveness, readiness, metrics, Jina's own, the OpenAPI document and its page; with `playground`, the live page."""

from __future__ import annotations

import functools
import platform
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jina_asgi.errors import NotReady, UnknownEndpoint
from jina_asgi.protocols.http.answers import described
from jina_asgi.protocols.http.exchange import send_json
from jina_asgi.protocols.http.openapi import PAGE, document
from jina_asgi.protocols.problems import MethodNotAllowed
from jina_asgi.runners.wrappers import Wrapper
from jina_asgi.serving.service import RunnerService
from jina_asgi.settings import AppSettings
from jina_asgi.types import Endpoint

#: Answered without authentication: they say only whether the process lives and can serve.
PUBLIC = frozenset({"/", "/-/live", "/-/ready"})
_METHODS = ("GET", "HEAD")
_ONLY_FROM_HERE = b"default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
_PACKAGES = ("jina-asgi", "docarray", "pydantic", "starlette", "numpy")


#: Its paths, whatever the endpoints are.
_PATHS = frozenset(
    {
        "/",
        "/-/live",
        "/-/ready",
        "/-/status",
        "/-/metrics",
        "/-/endpoints",
        "/status",
        "/dry_run",
        "/openapi.json",
        "/docs",
    }
)


def is_managed(path: str) -> bool:
    """Whether `Management` answers a path, whatever the endpoints are."""
    return path in _PATHS or path.startswith("/-/")


class Management:
    """Answers all paths that are not endpoints.

    Args:
        service: the service that the routes describe.
        options: those of the application, such as the title of the OpenAPI document.
    """

    def __init__(self, service: RunnerService, options: AppSettings) -> None:
        self._service, self._options = service, options
        #: Further sections of `/-/status`, by name.
        self.sections: dict[str, Callable[[], Mapping[str, Any]]] = {}
        self._documented: tuple[Mapping[str, Endpoint], dict[str, Any]] | None = None
        self._routes: dict[str, Callable[[Scope, Send], Awaitable[None]]] = {
            "/": self._root,
            "/-/live": self._root,
            "/-/ready": self._ready,
            "/-/status": self._figures,
            "/-/metrics": self._metrics,
            "/-/endpoints": self._describe,
            "/status": self._status,
            "/dry_run": self._dry_run,
            "/openapi.json": self._openapi,
            "/docs": self._docs,
        }
        assert self._routes.keys() == _PATHS
        self._page: Mapping[str, ASGIApp] = {}
        if options.playground:
            from jina_asgi.serving.playground import Playground  # with metrics, and not imported without

            self._page = Playground(service).routes

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """Its paths, with their methods."""
        return dict.fromkeys((*self._routes, *self._page), _METHODS)

    async def __call__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            send = without_body(send)
        try:
            if path not in PUBLIC:
                await self._service.authenticate(path, Headers(raw=scope["headers"]))
            route, page = self._routes.get(path), self._page.get(path)
            if route is None and page is None:
                raise UnknownEndpoint("Not Found")
            if scope["method"] not in _METHODS:
                raise MethodNotAllowed(_METHODS)
            if route is not None:
                await route(scope, send)
            elif page is not None:
                await page(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            if isinstance(error, UnknownEndpoint):
                self._service.refused(path, error, scope["method"])
            status, body, headers = self._service.problem(error)
            await send_json(send, status, body, headers)

    def openapi(self, root: str) -> dict[str, Any]:
        """The OpenAPI document, as seen below the prefix `root`.

        Raises:
            NotReady: the endpoints are not known yet.
        """
        return self._document(self._service.endpoints, root)

    def _document(self, endpoints: Mapping[str, Endpoint], root: str) -> dict[str, Any]:
        if self._documented is None or self._documented[0] is not endpoints:
            options = self._options
            made = document(endpoints, title=options.title, description=options.description, version=options.version)
            self._documented = endpoints, made
        _, found = self._documented
        return {**found, "servers": [{"url": root}]} if root else found

    async def _root(self, scope: Scope, send: Send) -> None:
        await send_json(send, 200, {})

    async def _ready(self, scope: Scope, send: Send) -> None:
        self._service.start()
        if reason := self._service.unhealthy_reason():
            raise NotReady(reason)
        await send_json(send, 200, {"ready": True})

    async def _metrics(self, scope: Scope, send: Send) -> None:
        body, content_type = await self._service.metrics_page(Headers(raw=scope["headers"]).get("accept", ""))
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _figures(self, scope: Scope, send: Send) -> None:
        source = self._service.source
        metrics = Wrapper(source.runner).status()  # absent if the Runner has none
        deployment = {"state": self._service.state, **metrics}
        with suppress(NotReady):
            deployment["endpoints"] = {name: endpoint.kind for name, endpoint in self._service.endpoints.items()}
        sections = {name: section() for name, section in self.sections.items()}
        await send_json(send, 200, {"versions": versions(), "deployments": {source.name: deployment}, **sections})

    async def _describe(self, scope: Scope, send: Send) -> None:
        """The endpoints as our own clients read them."""
        await send_json(send, 200, {"endpoints": await described(self._service)})

    async def _status(self, scope: Scope, send: Send) -> None:
        """Jina's shape; versions only, never the environment."""
        await send_json(send, 200, {"jina": {"jina": versions()["jina-asgi"], **versions()}, "envs": {}})

    async def _dry_run(self, scope: Scope, send: Send) -> None:
        self._service.start()
        reason = self._service.unhealthy_reason()
        exception = {"name": "NotReady", "args": [reason], "stacks": [], "executor": ""} if reason else None
        await send_json(send, 200, {"code": int(bool(reason)), "description": reason, "exception": exception})

    async def _openapi(self, scope: Scope, send: Send) -> None:
        await send_json(send, 200, self._document(await self._service.loaded(), scope.get("root_path", "")))

    async def _docs(self, scope: Scope, send: Send) -> None:
        page = PAGE.encode()
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(page)).encode()),
            (b"content-security-policy", _ONLY_FROM_HERE),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page})


def without_body(send: Send) -> Send:
    """Wraps `send` for the answer to a HEAD request, without the body."""

    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


@functools.cache
def versions() -> dict[str, str]:
    """The versions of this library and its main dependencies."""
    return {name: _version(name) for name in _PACKAGES} | {
        "python": platform.python_version(),
        "platform": platform.system(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
