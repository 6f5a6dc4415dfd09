"""Serves WebSockets as an ASGI application: checks handshakes. `socket` and `binary` have the two protocols.

A refused handshake gets an HTTP response if the server can send one, else the server's 403.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from jina_asgi.errors import NotReady, UnknownEndpoint
from jina_asgi.protocols.http.bodies import BodiesByEndpoint
from jina_asgi.protocols.problems import as_json, problem
from jina_asgi.protocols.service import Service
from jina_asgi.protocols.websocket.socket import Socket

_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}


def may_connect(headers: Iterable[tuple[bytes, bytes]], cors: bool | Sequence[str]) -> bool:
    """Whether a client may connect: it is not a page, or a page of this host or of an origin in `cors`.

    Args:
        headers: the handshake's, names in lower case.
        cors: the option of JinaASGI: True for all origins, or those allowed beside our own.
    """
    found: dict[bytes, list[str]] = {b"origin": [], b"host": []}
    for name, value in headers:
        if name in found:
            found[name].append(value.decode("latin-1").strip())
    origins, hosts = found[b"origin"], found[b"host"]
    if not origins or cors is True:
        return True
    if len(origins) > 1:
        return False
    allowed = cors or ()
    return origins[0] in allowed or "*" in allowed or (len(hosts) == 1 and _is_same(origins[0], hosts[0]))


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is that of the requested host; either may omit its scheme's default port."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in _PORTS or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
        return False
    implied = f":{_PORTS[parts.scheme]}"
    return parts.netloc.lower().removesuffix(implied) == host.lower().removesuffix(implied)


logger = logging.getLogger("jina_asgi")

PATH = "/-/ws"
#: If a client offers subprotocols (a browser's only way to send a token), it must offer this one too, which is selected.
SUBPROTOCOL = "jina-asgi.json"
#: In a handshake's `state`: this socket closes by itself at the end of serving, after its calls.
DRAINS = "jina_asgi.drains"
_JINAS = "bytes"
#: The paths of Jina's own clients, which offer this subprotocol: for requests, and for readiness.
_ROOT, _READINESS = "/", "/dry_run"
_DENIAL = "websocket.http.response"


class WebSocketApp:
    """Opens sockets at `PATH`, and those of Jina's own clients at the root.

    Args:
        service: answers the calls.
        cors: the origins whose pages may connect: the application's option.
    """

    def __init__(self, service: Service, cors: bool | Sequence[str]) -> None:
        self._service, self._cors = service, cors
        self._bodies = BodiesByEndpoint(service.limits)

    async def __call__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one handshake to `path`, below the application's prefix, and its socket."""
        if (await receive())["type"] != "websocket.connect":
            return
        offered = scope.get("subprotocols", ())
        is_jinas = path in (_ROOT, _READINESS) and _JINAS in offered
        binary = _binary() if is_jinas else None
        if is_jinas and binary is None:
            await send({"type": "websocket.accept", "subprotocol": _JINAS})
            reason = "Jina's WebSocket needs the extra grpc: pip install 'jina-asgi[grpc]'"
            await send({"type": "websocket.close", "code": 4406, "reason": reason})
            return
        try:
            await self._admit(path, scope, is_served=is_jinas or path == PATH)
        except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
            await deny(error, scope, send, expose=self._service.expose_errors)
            return
        if binary is not None and path == _READINESS:
            await binary.send_readiness(receive, send, self._service)
            return
        scope.setdefault("state", {})[DRAINS] = True
        if binary is not None:
            await binary.answer_requests(scope, receive, send, self._service)
            return
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        await Socket(scope, receive, send, self._service, self._bodies).run()

    async def _admit(self, path: str, scope: Scope, *, is_served: bool) -> None:
        """Check that a socket may be opened.

        Raises:
            HTTPException: 403, for a page of another origin. Unauthenticated, UnknownEndpoint, NotReady.
        """
        if not may_connect(scope["headers"], self._cors):
            raise HTTPException(403, "this origin may not connect; the option `cors` of JinaASGI allows others")
        if self._service.has_auth:
            await self._service.authenticate(path, Headers(raw=scope["headers"]))
        if not is_served:
            raise UnknownEndpoint("Not Found")
        if self._service.is_draining:
            raise NotReady("draining; try again later")


def _binary() -> Any:
    """The module of Jina's binary protocol, which needs protobuf; None without the extra `grpc`."""
    try:
        from jina_asgi.protocols.websocket import binary as websocket_binary
    except ModuleNotFoundError:
        return None
    return websocket_binary


async def deny(error: Exception, scope: Scope, send: Send, *, expose: bool) -> None:
    """Refuse a handshake because of an error."""
    status, body, headers = problem(error, expose=expose)
    try:
        if _DENIAL in (scope.get("extensions") or {}):
            raw = as_json(body)
            length = str(len(raw)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
            await send({"type": f"{_DENIAL}.start", "status": status, "headers": headers})
            await send({"type": f"{_DENIAL}.body", "body": raw})
        else:
            code, reason = close_code(status, body)
            await send({"type": "websocket.close", "code": code, "reason": reason})
    except OSError:
        logger.debug("a client left before its handshake was refused")


def close_code(status: int, body: Mapping[str, Any]) -> tuple[int, str]:
    """The close code and reason for an error, cut to what a close frame holds (123 bytes)."""
    return 4000 + status, str(body["detail"]).encode()[:123].decode("utf-8", "ignore")
