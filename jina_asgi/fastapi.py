"""The endpoints as FastAPI routes: in the host's own `/docs`, behind the host's own dependencies.

FastAPI resolves the dependencies and hands over; bodies are read and answered as everywhere else here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from jina_asgi.errors import DefinitionError, NotReady
from jina_asgi.plugin import AnySource, JinaASGI
from jina_asgi.protocols.http import EndpointApp
from jina_asgi.protocols.openapi import SHARED, operations
from jina_asgi.protocols.websocket import PATH
from jina_asgi.starlette import handlers
from jina_asgi.types import Endpoint

try:
    from fastapi import APIRouter, FastAPI
except ImportError as error:
    raise ImportError("jina_asgi.fastapi needs FastAPI: pip install fastapi") from error

__all__ = ["handlers", "include", "router"]

_DEPTH = 12


def router(
    source: AnySource, *, dependencies: Sequence[Any] = (), tags: list[Any] | None = None, **options: Any
) -> APIRouter:
    """An APIRouter with one route an endpoint, and the WebSocket; its lifespan loads and closes what answers.

    Args:
        source: a Deployment, a Flow, or an Executor class.
        dependencies: of FastAPI's, for every route. One that asks for a `Request` refuses every WebSocket, which has
            none: ask for an `HTTPConnection`.
        tags: for the OpenAPI document.
        options: those of `JinaASGI`.

    Raises:
        DefinitionError: an option that does not exist; a source whose endpoints are known once it has started.
    """
    asgi = JinaASGI(source, **options)
    try:
        endpoints = asgi.endpoints
    except NotReady as error:
        raise DefinitionError(
            f"the endpoints of {asgi.source.name!r} are known once it has started, and routes are written before:"
            " give the Executor's class, or use mount(app, '/lm', ...)"
        ) from error
    made = APIRouter(dependencies=list(dependencies), tags=tags, lifespan=asgi.lifespan)
    for name, app in endpoints.items():
        for method in app.methods:
            made.add_api_route(
                name,
                _handed_over(app),
                methods=[method],
                name=f"{method.lower()}{name.replace('/', '_')}",
                response_class=Response,
                openapi_extra=_operation(app.endpoint, method.lower()),
                include_in_schema=True,
            )
    made.add_api_websocket_route(PATH, _socket(asgi))
    return made


def include(app: FastAPI, source: AnySource, *, prefix: str, **options: Any) -> None:
    """Include the endpoints in a FastAPI app.

    Args:
        app: the host.
        source: a Deployment, a Flow, or an Executor class.
        prefix: such as "/lm".
        options: those of `router`.

    Raises:
        DefinitionError: a prefix that is none, or as `router`.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise DefinitionError(f"include(..., prefix={prefix!r}): expected a prefix such as '/lm'")
    app.include_router(router(source, **options), prefix=prefix)


def _handed_over(app: EndpointApp) -> Any:
    async def endpoint(request: Request) -> Response:
        if not hasattr(request, "_body"):
            return _HandOver(app)
        return _HandOver(app, await request.body())  # a dependency has read it

    endpoint.__doc__ = app.endpoint.description or f"Endpoint {app.endpoint.name}"
    return endpoint


def _socket(asgi: JinaASGI) -> Any:
    async def socket(websocket: WebSocket) -> None:
        await asgi.websocket(PATH, websocket.scope, websocket.receive, websocket.send)

    return socket


class _HandOver(Response):
    """The response that an endpoint's own application gives to a request whose body may have been read already."""

    def __init__(self, app: EndpointApp, read: bytes | None = None) -> None:
        super().__init__()
        self._app, self._read = app, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive if self._read is None else self._again(receive), send)

    def _again(self, receive: Receive) -> Receive:
        async def read_again() -> Message:
            body, self._read = self._read, None
            return await receive() if body is None else {"type": "http.request", "body": body, "more_body": False}

        return read_again


def _operation(endpoint: Endpoint, method: str) -> dict[str, Any]:
    """The operation for the host's document, every reference of ours replaced by what it refers to."""
    schemas = dict(SHARED)
    operation = operations(endpoint, schemas)[method]
    wanted = ("requestBody", "responses", "parameters", "summary", "description")
    return {key: _inlined(operation[key], schemas, ()) for key in wanted if key in operation}


def _inlined(value: Any, schemas: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """A value with every reference to our schemas replaced; one within itself becomes any object of that title."""
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
    """What stands beside a reference, such as a description or a default."""
    return {key: value for key, value in reference.items() if key != "$ref"}
