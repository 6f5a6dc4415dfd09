"""Error handlers for a Starlette or FastAPI app's own routes."""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from jina_asgi.errors import DefinitionError, JinaASGIError
from jina_asgi.errors._shown import safe_repr
from jina_asgi.protocols.problems import problem
from jina_asgi.protocols.websocket.app import close_code, deny


def handlers(app: Starlette, *, expose_errors: bool = False) -> None:
    """Makes an app answer this library's errors in its own routes as mounted endpoints do.

    So `await deployment.call(...)` in a route answers 503 with `Retry-After` while it loads or its queue is full, 422
    for documents that do not fit, and so on, with the endpoints' JSON body. A WebSocket of the app is refused with that
    answer, or, if it is open, closed with 4000 and the status.

    Args:
        app: a Starlette or FastAPI app, before it starts.
        expose_errors: also send the message of an Executor's own exception (for development).

    Raises:
        DefinitionError: the app has started, and would ignore the handlers.
    """
    if not isinstance(app, Starlette):
        raise DefinitionError(f"handlers({type(app).__name__}): expected a Starlette or FastAPI app")
    if app.middleware_stack is not None:
        raise DefinitionError("handlers(app): the app has started; call this where you make it")

    async def answer(connection: HTTPConnection, error: Exception) -> Response | None:
        if isinstance(connection, WebSocket):
            await _end(connection, error, expose_errors)
            return None
        status, body, headers = problem(error, expose=expose_errors)
        response = Response(orjson.dumps(body, default=safe_repr), status, media_type="application/json")
        response.raw_headers.extend(headers)
        return response

    app.add_exception_handler(JinaASGIError, answer)  # type: ignore[arg-type]  # Starlette passes either kind of connection


async def _end(socket: WebSocket, error: Exception, expose: bool) -> None:
    if socket.application_state is WebSocketState.CONNECTING:
        await deny(error, socket.scope, socket.send, expose=expose)
    elif WebSocketState.DISCONNECTED not in (socket.application_state, socket.client_state):
        status, body, _ = problem(error, expose=expose)
        await socket.close(*close_code(status, body))
