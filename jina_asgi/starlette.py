"""What a Starlette app, FastAPI's too, may take from here for routes of its own: the answers to our errors."""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from jina_asgi.errors import DefinitionError, JinaASGIError
from jina_asgi.errors._shown import shown
from jina_asgi.protocols.problems import problem
from jina_asgi.protocols.websocket.app import close_code, deny


def handlers(app: Starlette, *, expose_errors: bool = False) -> None:
    """Have an app answer our errors as mounted endpoints do, where its own routes raise them.

    So `await deployment.call(...)` in a route answers 503 with `Retry-After` while it loads or its queue is full, 422
    where documents do not fit, and so on, with the JSON body that the endpoints have. A WebSocket of its own is refused
    by that answer, or, where it is open, closed by 4000 and the status.

    Args:
        app: a Starlette or FastAPI app, before it starts.
        expose_errors: also tell the message of an Executor's own exception (for development).

    Raises:
        DefinitionError: the app has started, and would not heed it.
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
        response = Response(orjson.dumps(body, default=shown), status, media_type="application/json")
        response.raw_headers.extend(headers)
        return response

    app.add_exception_handler(JinaASGIError, answer)  # type: ignore[arg-type]  # Starlette gives it either connection


async def _end(socket: WebSocket, error: Exception, expose: bool) -> None:
    if socket.application_state is WebSocketState.CONNECTING:
        await deny(error, socket.scope, socket.send, expose=expose)
    elif WebSocketState.DISCONNECTED not in (socket.application_state, socket.client_state):
        status, body, _ = problem(error, expose=expose)
        await socket.close(*close_code(status, body))
