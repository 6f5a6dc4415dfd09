"""Serves the endpoints as FastAPI routes: in the host's own `/docs`, with the host's dependencies.

FastAPI resolves the dependencies; then the endpoint's own application reads the request and answers it.

Adds endpoints to a FastAPI host's OpenAPI document, with their schemas as components, like the host's own.

A route is made before its app is known, and has its schemas inline. A known app replaces them by references when it makes
its document.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Unpack

from fastapi import FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.protocols.http.app import EndpointApp
from jina_asgi.protocols.http.openapi import SHARED, operations
from jina_asgi.protocols.websocket.app import PATH
from jina_asgi.serving.asgi import AnySource, JinaASGI
from jina_asgi.serving.management import PUBLIC, Management
from jina_asgi.serving.service_group import awaiting
from jina_asgi.settings.options import AppOptions
from jina_asgi.starlette import handlers
from jina_asgi.types import Endpoint

#: Marks an operation with its endpoint until an app's document is made.
_MARK = "x-jina-asgi"
_DEPTH = 12
_REFERENCE = "#/components/schemas/"
#: FastAPI has another schema of this name.
_OTHERS = {"HTTPValidationError": "InvalidDocs"}
_KEPT = ("requestBody", "responses", "parameters", "summary", "description")


def operation(endpoint: Endpoint, method: str, mark: str) -> dict[str, Any]:
    """The operation with all schemas inline, valid in any document."""
    schemas = dict(SHARED)
    made = operations(endpoint, schemas)[method]
    return {**{key: _inlined(made[key], schemas, ()) for key in _KEPT if key in made}, _MARK: mark}


def refer(app: FastAPI, endpoints: Mapping[str, Endpoint]) -> None:
    """Make an app's document refer to the schemas of these endpoints, by their marks."""
    made: Any = app.openapi
    if not isinstance(made, _Document):
        made = _Document(made)
        app.openapi = made  # type: ignore[method-assign]  # as FastAPI's manual extends the document
    made.endpoints.update(endpoints)
    app.openapi_schema = None  # one that was made before


class _Document:
    """`app.openapi`, with our schemas among the components."""

    def __init__(self, made: Any) -> None:
        self._made, self._done = made, None
        self.endpoints: dict[str, Endpoint] = {}

    def __call__(self) -> dict[str, Any]:
        document: Any = self._made()
        if document is not self._done:
            self._refer(document)
            self._done = document
        return document  # type: ignore[no-any-return]  # the host's own

    def _refer(self, document: dict[str, Any]) -> None:
        ours = dict(SHARED)
        found: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for path, methods in document.get("paths", {}).items():
            known: dict[str, Any] = {}
            for method, its in methods.items():
                endpoint = self.endpoints.get(its.pop(_MARK, "")) if isinstance(its, dict) else None
                if endpoint is not None:
                    known = known or operations(endpoint, ours, path)
                    found.append((its, known[method]))
        if not found:
            return
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        names = _free(ours, schemas)
        schemas.update({names[name]: _renamed(schema, names) for name, schema in ours.items()})
        for its, made in found:
            _replace(its, _renamed(made, names))


def _replace(operation: dict[str, Any], made: Mapping[str, Any]) -> None:
    """Replaces inline schemas in an operation by references; additions of the host's dependencies stay."""
    if "requestBody" in made:
        operation["requestBody"] = made["requestBody"]
    operation["responses"] = {**operation.get("responses", {}), **made["responses"]}
    if own := made.get("parameters"):
        names = {(parameter["in"], parameter["name"]) for parameter in own}
        others = [other for other in operation["parameters"] if (other["in"], other["name"]) not in names]
        operation["parameters"] = [*others, *own]


def _free(ours: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """Names for our schemas that the host's document does not use, or uses for the same schema."""
    names: dict[str, str] = {}
    for name, schema in ours.items():
        free = _OTHERS.get(name, name)
        while free in names.values() or taken.get(free, schema) != schema:
            free += "_"
        names[name] = free
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A schema with its references renamed."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _renamed(item, names) for key, item in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REFERENCE):  # `$ref` may also be the name of a property
        renamed["$ref"] = _REFERENCE + names[reference.removeprefix(_REFERENCE)]
    return renamed


def _inlined(value: Any, schemas: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """A value with every reference to our schemas inlined; a recursive one becomes an object of that title."""
    if isinstance(value, list):
        return [_inlined(item, schemas, within) for item in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):  # `$ref` may also be the name of a property
        return {key: _inlined(item, schemas, within) for key, item in value.items()}
    name = reference.rpartition("/")[2]
    if name in within or len(within) > _DEPTH:
        return {"type": "object", "title": name}
    return _inlined({**schemas[name], **_beside(value)}, schemas, (*within, name))


def _beside(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The keys beside a reference, such as a description or a default."""
    return {key: value for key, value in reference.items() if key != "$ref"}


try:
    from fastapi import APIRouter, Depends, FastAPI, params

except ImportError as error:
    raise ImportError("jina_asgi.fastapi needs FastAPI: pip install fastapi") from error


_MANAGEMENT = ("/-/live", "/-/ready", "/-/status", "/-/endpoints")
_marks = itertools.count()


def router(
    source: AnySource,
    *,
    dependencies: Sequence[Any] = (),
    identity: Callable[..., Any] | params.Depends | None = None,
    tags: list[Any] | None = None,
    **options: Unpack[AppOptions],
) -> APIRouter:
    """Makes an APIRouter with a route for each endpoint, the WebSocket, and the management routes.

    Its lifespan loads and closes the source.

    Args:
        source: a Deployment, a Flow, or an Executor class.
        dependencies: FastAPI dependencies of every route but `/-/live` and `/-/ready`, which only report whether the
            process lives and can serve. A dependency with a `Request` parameter rejects every WebSocket, which
            has none: use `HTTPConnection`.
        identity: one more dependency, whose result is the Executor's `context.identity`, such as the function that
            returns your user. By default the identity is `request.user`, if a middleware has set it.
        tags: for the OpenAPI document.
        options: those of `JinaASGI`. With `auth`, its result is the identity.

    Raises:
        DefinitionError: an unknown option; both `auth` and `identity`; a source whose endpoints are known only after it
            has started.
    """
    return _Routes(source, dependencies=dependencies, identity=identity, tags=tags, **options).router


class _RouterOptions(AppOptions, total=False):
    """Those of `router`."""

    dependencies: Sequence[Any]
    identity: Callable[..., Any] | params.Depends | None
    tags: list[Any] | None


def include(app: FastAPI, source: AnySource, *, prefix: str, **options: Unpack[_RouterOptions]) -> None:
    """Includes the endpoints in a FastAPI app.

    Args:
        app: the host.
        source: a Deployment, a Flow, or an Executor class.
        prefix: the path prefix, such as "/lm".
        options: those of `router`.

    Raises:
        DefinitionError: an invalid prefix, or as `router`.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise DefinitionError(f"include(..., prefix={prefix!r}): expected a prefix such as '/lm'")
    routes = _Routes(source, **options)
    app.include_router(routes.router, prefix=prefix)
    app.router.lifespan_context = awaiting(routes.group, app.router.lifespan_context)
    refer(app, routes.endpoints)


class _Routes:
    """A router, and the markers of its operations."""

    def __init__(
        self,
        source: AnySource,
        *,
        dependencies: Sequence[Any] = (),
        identity: Callable[..., Any] | params.Depends | None = None,
        tags: list[Any] | None = None,
        **options: Unpack[AppOptions],
    ) -> None:
        if identity is not None and options.get("auth") is not None:
            raise DefinitionError("router(auth=..., identity=...): expected one of them, as both identify the caller")
        self._asgi = JinaASGI(source, **options)
        self._dependencies = list(dependencies)
        self._user = identity if isinstance(identity, params.Depends) else Depends(identity or _user_of_the_host)
        self.group = self._asgi.source.group
        self.router = APIRouter(tags=tags, lifespan=self._lifespan)
        self.endpoints = {f"{next(_marks)}{name}": app.endpoint for name, app in self._apps().items()}
        for mark, (name, app) in zip(self.endpoints, self._apps().items(), strict=True):
            for method in app.methods:
                self.router.add_api_route(
                    name,
                    self._handed_over(app),
                    methods=[method],
                    name=f"{method.lower()}{name.replace('/', '_')}",
                    response_class=Response,
                    dependencies=self._dependencies,
                    openapi_extra=operation(app.endpoint, method.lower(), mark),
                )
        for path in _MANAGEMENT:
            guards = [] if path in PUBLIC else self._dependencies
            self.router.add_api_route(
                path, self._managed(path), methods=["GET", "HEAD"], dependencies=guards, include_in_schema=False
            )
        self.router.add_api_websocket_route(PATH, self._socket(), dependencies=self._dependencies)

    def _apps(self) -> Mapping[str, EndpointApp]:
        try:
            return self._asgi.endpoints
        except NotReady as error:
            raise DefinitionError(
                f"the endpoints of {self._asgi.source.name!r} are known once it has started, and routes are written"
                " before: give the Executor's class, or use mount(app, '/lm', ...)"
            ) from error

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        if isinstance(app, FastAPI):
            refer(app, self.endpoints)
        async with self._asgi.lifespan():
            yield

    def _handed_over(self, app: EndpointApp) -> Any:
        async def endpoint(request: Request, identity: Any = self._user) -> Response:
            # A dependency has read the body already, if there is one.
            return _HandOver(app, identity, await request.body() if hasattr(request, "_body") else None)

        endpoint.__doc__ = app.endpoint.description or f"Endpoint {app.endpoint.name}"
        return endpoint

    def _managed(self, path: str) -> Any:
        management = self._asgi.management

        async def manage(request: Request) -> Response:
            return _Managed(management, path)

        return manage

    def _socket(self) -> Any:
        answer = self._asgi.websocket

        async def socket(websocket: WebSocket, identity: Any = self._user) -> None:
            await answer(PATH, {**websocket.scope, "user": identity}, websocket.receive, websocket.send)

        return socket


async def _user_of_the_host(connection: HTTPConnection) -> Any:
    """The user that the host's own middleware has set."""
    return connection.scope.get("user")


class _Managed(Response):
    """The response of a management route."""

    def __init__(self, management: Management, path: str) -> None:
        super().__init__()
        self._management, self._path = management, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._management(self._path, scope, receive, send)


class _HandOver(Response):
    """The response of an endpoint's own application to a request whose body may have been read already."""

    def __init__(self, app: EndpointApp, identity: Any, read: bytes | None) -> None:
        super().__init__()
        self._app, self._identity, self._read = app, identity, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {**scope, "user": self._identity}
        await self._app(asked, receive if self._read is None else self._again(receive), send)

    def _again(self, receive: Receive) -> Receive:
        async def read_again() -> Message:
            body, self._read = self._read, None
            return await receive() if body is None else {"type": "http.request", "body": body, "more_body": False}

        return read_again


__all__ = ["handlers", "include", "router"]
